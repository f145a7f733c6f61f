//! The descriptions of settings that have more than one form.

use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, RefOr, Schema, Type, schema::SchemaType};

/// Of `memory`.
pub(super) fn memory() -> RefOr<Schema> {
    let about =
        "Of a container: a number of bytes, or a text such as \"256MB\"; at least 16 MB, at most MAX_FUNCTION_MEMORY.";
    limit_schema(Type::Integer, 16_000_000.0, about)
}

/// Of `cpus`.
pub(super) fn cpus() -> RefOr<Schema> {
    limit_schema(Type::Number, 0.01, "Of a container, in processors; at least 0.01, at most MAX_FUNCTION_CPUS.")
}

/// Of `timeout`.
pub(super) fn timeout() -> RefOr<Schema> {
    let about = "Of one invocation: a number of seconds, or a text such as \"500ms\"; above zero, at most \
                 MAX_FUNCTION_TIMEOUT.";
    limit_schema(Type::Number, 0.0, about)
}

/// Of `concurrency`.
pub(super) fn concurrency() -> RefOr<Schema> {
    let about = "Invocations of the function that run at one time on each node: 1 to 1000. More wait. Null for no \
                 limit but the node's.";
    limit_schema(Type::Integer, 1.0, about)
}

/// Of `keepWarm`.
pub(super) fn keep_warm() -> RefOr<Schema> {
    let about = "Instances that each node keeps, whether or not the instances are used: 0 to 10. All functions \
                 together have at most one less than DOCKER_CONTAINER_LIMIT.";
    limit_schema(Type::Integer, 0.0, about)
}

/// Of `http`.
pub(super) fn http() -> RefOr<Schema> {
    let about = "Whose requests reach the function over HTTP on FUNCTIONS_PORT: `off` for nobody's, `token` for those \
                 with a token of the platform, `public` for everybody's; at most the operator's HTTP_FUNCTIONS.";
    let types = SchemaType::from_iter([Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(types).description(Some(about)).into()
}

/// Greatest values are the operator's configuration, and no part of a description of all services.
fn limit_schema(number: Type, least: f64, about: &str) -> RefOr<Schema> {
    let types = SchemaType::from_iter([number, Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(types).minimum(Some(least)).description(Some(about)).into()
}

/// Of the `mode` of `preload`.
pub(super) fn mode() -> RefOr<Schema> {
    texts_or_list(SchemaType::from(Type::String), "`auto`, `stdlib`, `off`, or a list of modules.")
}

fn texts_or_list(text: SchemaType, about: &str) -> RefOr<Schema> {
    let list = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::String));
    let text = ObjectBuilder::new().schema_type(text);
    OneOfBuilder::new().item(text).item(list).description(Some(about)).into()
}

/// Of `preload`.
pub(super) fn preload() -> RefOr<Schema> {
    let about = "The modules that instances of a Python function import before their first invocation: `auto` for the \
                 program's top-level imports from the standard library and installed packages, `stdlib` for those from \
                 the standard library, `off`, or a list of modules; at most the operator's PRELOAD.";
    texts_or_list(SchemaType::from_iter([Type::String, Type::Null]), about)
}

/// Of `environment`.
pub(super) fn environment() -> RefOr<Schema> {
    variables_schema("Variables for every invocation, unless its input has one of the name; null takes one away.")
}

/// Of `secrets`.
pub(super) fn secrets() -> RefOr<Schema> {
    variables_schema("The same, but never shown, and not for an input to replace.")
}

fn variables_schema(about: &str) -> RefOr<Schema> {
    let names = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z_][A-Za-z0-9_]*$"));
    let value = ObjectBuilder::new().schema_type(SchemaType::from_iter([
        Type::String,
        Type::Number,
        Type::Boolean,
        Type::Null,
    ]));
    let object =
        ObjectBuilder::new().property_names(Some(names)).additional_properties(Some(Schema::from(value.build())));
    object.schema_type(Type::Object).description(Some(about)).into()
}
