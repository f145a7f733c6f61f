//! The registry of all functions, in memory. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::Function;
use crate::config::HttpMode;
use crate::domain::{Executions, FunctionId};

/// All functions, as the store had them when this node last looked.
#[derive(Debug, Default)]
pub struct Registry {
    functions: RwLock<HashMap<FunctionId, Arc<Function>>>,
    /// The executions since the last [`Registry::take_executed`].
    executed: Mutex<HashMap<FunctionId, Executions>>,
}

impl Registry {
    /// Adds a function, in the place of one with the same id of an earlier or the same generation. Returns the function
    /// that is in the registry then.
    pub fn insert(&self, function: impl Into<Arc<Function>>) -> Arc<Function> {
        let function = function.into();
        let mut functions = self.functions.write();
        match functions.get(&function.id) {
            Some(present) if present.generation > function.generation => Arc::clone(present),
            Some(_) | None => {
                functions.insert(function.id, Arc::clone(&function));
                function
            }
        }
    }

    /// Puts a successor in a function's place, and returns the predecessor. None when the function is gone, as a
    /// deleted function must not come back, and when the function has a later generation already.
    pub fn replace(&self, next: Arc<Function>) -> Option<Arc<Function>> {
        let mut functions = self.functions.write();
        let function = functions.get_mut(&next.id).filter(|function| function.generation <= next.generation)?;
        Some(std::mem::replace(function, next))
    }

    /// Counts an execution of the function at this time, in Unix seconds.
    pub fn executed(&self, function: &Function, at: u64) {
        let execution = Executions { count: 1, last: Some(at) };
        function.executed(execution);
        self.executed.lock().entry(function.id).or_default().add(execution);
    }

    /// The executions since the last call, by function.
    pub fn take_executed(&self) -> HashMap<FunctionId, Executions> {
        std::mem::take(&mut *self.executed.lock())
    }

    /// The function with this id.
    pub fn get(&self, id: FunctionId) -> Option<Arc<Function>> {
        let functions = self.functions.read();
        functions.get(&id).map(Arc::clone)
    }

    /// The last submitted function of this name, of those that the caller sees.
    pub fn by_name(&self, name: &str, sees: impl Fn(FunctionId) -> bool) -> Option<Arc<Function>> {
        let functions = self.functions.read();
        let named = functions.values().filter(|function| function.name.as_str() == name && sees(function.id));
        named.max_by_key(|function| function.number).map(Arc::clone)
    }

    /// Removes a function. Of two concurrent callers only one gets the function.
    pub fn remove(&self, id: FunctionId) -> Option<Arc<Function>> {
        let mut functions = self.functions.write();
        functions.remove(&id)
    }

    /// The function that answers requests over HTTP under this name. Without regard to the case of letters, as in the
    /// name of a host, the earliest of several.
    pub fn by_http_name(&self, name: &str, is_host: bool) -> Option<Arc<Function>> {
        let is_meant = |own: &str| if is_host { own.eq_ignore_ascii_case(name) } else { own == name };
        let functions = self.functions.read();
        let answers = |function: &&Arc<Function>| function.settings.http != HttpMode::Off;
        let named = functions.values().filter(|function| is_meant(function.name.as_str())).filter(answers);
        named.min_by_key(|function| function.number).map(Arc::clone)
    }

    /// The number of functions.
    pub fn len(&self) -> usize {
        self.functions.read().len()
    }

    /// Whether there is no function.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All functions, the oldest first.
    pub fn list(&self) -> Vec<Arc<Function>> {
        let functions = self.functions.read();
        let mut list: Vec<_> = functions.values().cloned().collect();
        drop(functions);
        list.sort_unstable_by_key(|function| function.number);
        list
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::domain::settings::Settings;
    use crate::domain::{Image, Record, VersionRecord};
    use crate::domain::{ImageId, Language};
    use crate::functions::Absence;

    fn function(name: &str) -> Function {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let image = ImageId::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        let version = VersionRecord {
            number: 1,
            language: Language::Python,
            entry: None,
            created_at: 1,
            zip_size: 1,
            zip_sha256: String::new(),
            manifest: None,
            unpacked_size: 1,
            image: Image { id: image, size: 1, present: true, digest: None },
        };
        Function::from(Record {
            id: FunctionId::random(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            generation: 1,
            name: name.parse().unwrap(),
            created_at: 1,
            executions: Executions::default(),
            preloaded: None,
            settings: Settings::default(),
            version,
            previous: None,
        })
    }

    #[test]
    fn what_becomes_of_a_function_takes_its_place() {
        let registry = Registry::default();
        let first = registry.insert(function("a"));
        let last = registry.insert(function("a"));
        registry.executed(&first, 7);
        let renamed = Arc::new(first.successor("b".parse().unwrap(), Settings::default(), None));
        assert_eq!(renamed.revision, first.revision, "its instances are as good as before");
        let limited =
            renamed.successor("b".parse().unwrap(), Settings { memory: Some(1), ..Settings::default() }, None);
        assert_ne!(limited.revision, first.revision);
        assert!(registry.replace(Arc::clone(&renamed)).is_some());
        assert_eq!(registry.get(first.id).unwrap().executions().last, Some(7), "executions are the function's");
        assert_eq!(registry.list().iter().map(|function| function.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(registry.by_name("a", |_| true).unwrap().id, last.id);
        registry.remove(first.id);
        assert!(registry.replace(renamed).is_none(), "what is gone does not come back");
    }

    #[test]
    fn functions_are_listed_in_the_order_in_which_they_came() {
        let registry = Registry::default();
        let names: Vec<String> = (0..50).map(|n| format!("f{n}")).collect();
        for name in &names {
            registry.insert(function(name));
        }
        let listed: Vec<String> = registry.list().iter().map(|function| function.name.to_string()).collect();
        assert_eq!(listed, names);
        let last = registry.insert(function("f7"));
        assert_eq!(registry.by_name("f7", |_| true).unwrap().id, last.id);
        let before = registry.by_name("f7", |id| id != last.id).unwrap();
        assert_eq!(before.id, registry.list()[7].id, "the last that the caller sees");
        assert!(registry.by_name("g", |_| true).is_none());
    }

    #[test]
    fn a_function_is_removed_once() {
        let registry = Registry::default();
        let one = function("one");
        let id = one.id;
        registry.insert(one);
        assert!(registry.get(id).is_some() && registry.remove(id).is_some());
        assert!(registry.get(id).is_none() && registry.remove(id).is_none());
    }

    #[test]
    fn the_last_execution_never_goes_back() {
        let registry = Registry::default();
        let function = registry.insert(function("one"));
        assert_eq!(function.executions(), Executions { count: 0, last: None });
        registry.executed(&function, 20);
        registry.executed(&function, 10);
        let executions = Executions { count: 2, last: Some(20) };
        assert_eq!(function.executions(), executions);
        assert_eq!(registry.take_executed(), HashMap::from([(function.id, executions)]));
        assert_eq!(registry.take_executed(), HashMap::new());
    }

    #[test]
    fn only_the_image_that_is_meant_gets_lost() {
        let function = function("one");
        let version = &function.version;
        let (first, second) = (version.image(), ImageId::parse(&format!("sha256:{}", "1".repeat(64))).unwrap());
        assert_eq!(version.absence(), None);
        assert!(version.mark_missing(first.id.as_str(), Absence::Evicted));
        assert!(!version.mark_missing(first.id.as_str(), Absence::Lost));
        assert_eq!(version.absence(), Some(Absence::Evicted), "the first reason stays");
        version.set_image(Image { id: second.clone(), ..first.clone() }, 5000);
        assert_eq!(function.last_used(), 5000);
        assert!(!version.mark_missing(first.id.as_str(), Absence::Lost));
        assert!(version.image().present && version.image().id == second);
    }
}
