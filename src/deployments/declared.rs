//! What a version declares in its function.toml, as a deployment needs that.

use std::sync::Arc;

use super::{DeployError, Deployer};
use crate::domain::settings::{Change, Settings};
use crate::domain::{DeclaredSchedule, FunctionName, Manifest};
use crate::functions::{Function, Version};
use crate::invocations::input::Input;
use crate::schedules;

/// What a submit declares, its form included, and what the form says beside that. Without a function.toml the form is
/// the client's change of the function.
pub(super) fn with_form(manifest: Option<Manifest>, form: Change) -> (Option<Arc<Manifest>>, Change) {
    let Some(manifest) = manifest else { return (None, form) };
    let (settings, rest) = manifest.settings.with_form(form);
    (Some(Arc::new(Manifest { settings, ..manifest })), rest)
}

/// The name that a function gets with another version. A name that a client has given stays: only a function that has
/// the name of its version's function.toml goes on with that of the next version.
pub(super) fn next_name(current: &Function, version: &Version) -> Option<FunctionName> {
    let of = |version: &Version| version.manifest.as_ref()?.name.clone();
    of(version).filter(|_| of(&current.version).as_ref() == Some(&current.name))
}

/// Warnings of declared settings that do not count.
pub(super) fn warnings(manifest: Option<&Manifest>, settings: &Settings) -> Vec<String> {
    let overruled = manifest.map(|manifest| manifest.settings.overruled(&settings.pins)).unwrap_or_default();
    let warning = |name: String| {
        format!(
            "`{name}` of this version does not count, as a client has set the function's own value; a PATCH with null \
             takes that value away"
        )
    };
    overruled.into_iter().map(warning).collect()
}

impl Deployer {
    /// The schedules that a function's version declares, with their first slots from now on. Fails when the function
    /// does not take the input of one.
    pub(super) async fn declared_schedules(&self, function: &Function) -> Result<Vec<DeclaredSchedule>, DeployError> {
        let manifest = function.version.manifest.clone().filter(|manifest| !manifest.schedules.is_empty());
        let Some(manifest) = manifest else { return Ok(Vec::new()) };
        for (_, definition) in &manifest.schedules {
            // The function.toml was read, so this is an object of names and values.
            if let Ok(object) = serde_json::from_slice(&definition.input) {
                Input::parse(object)?.check(&function.settings)?;
            }
        }
        let now = self.store.time().await? / 1000;
        // Time zones are files.
        Ok(tokio::task::spawn_blocking(move || schedules::declared(&manifest, now)).await??)
    }
}
