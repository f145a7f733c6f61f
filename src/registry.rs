//! Which functions there are: answered from memory. No I/O.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::types::{FunctionId, FunctionName, ImageId, Language};

/// A function that can be executed.
#[derive(Debug)]
pub struct Function {
    /// Its id.
    pub id: FunctionId,
    /// What its owner calls it.
    pub name: FunctionName,
    /// What it is written in.
    pub language: Language,
    /// What it runs from.
    pub image_id: ImageId,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds; 0 until the first execution.
    last_executed: AtomicU64,
    deleted: AtomicBool,
}

impl Function {
    /// One that has not been executed yet.
    pub fn new(id: FunctionId, name: FunctionName, language: Language, image_id: ImageId, created_at: u64) -> Self {
        Self { id, name, language, image_id, created_at, last_executed: AtomicU64::new(0), deleted: AtomicBool::new(false) }
    }

    /// When it was last executed, in Unix seconds.
    pub fn last_executed(&self) -> Option<u64> {
        Some(self.last_executed.load(Ordering::Relaxed)).filter(|&at| at != 0)
    }

    /// Whether it was deleted. Who holds it may have got it before that.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Notes that it was deleted.
    pub fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    /// Notes an execution at this time, in Unix seconds.
    pub fn executed(&self, at: u64) {
        self.last_executed.fetch_max(at, Ordering::Relaxed);
    }
}

/// All functions, with the number in which each came.
#[derive(Debug, Default)]
pub struct Registry {
    functions: RwLock<HashMap<FunctionId, (u64, Arc<Function>)>>,
    next: AtomicU64,
}

impl Registry {
    /// Adds a function.
    pub fn insert(&self, function: Function) -> Arc<Function> {
        let function = Arc::new(function);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.insert(function.id, (number, Arc::clone(&function)));
        function
    }

    /// The function of this id.
    pub fn get(&self, id: FunctionId) -> Option<Arc<Function>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(&id).map(|(_, function)| Arc::clone(function))
    }

    /// Takes a function out. One of two who try gets it.
    pub fn remove(&self, id: FunctionId) -> Option<Arc<Function>> {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.remove(&id).map(|(_, function)| function)
    }

    /// All of them, the oldest first.
    pub fn list(&self) -> Vec<Arc<Function>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = functions.values().cloned().collect();
        drop(functions);
        list.sort_unstable_by_key(|&(number, _)| number);
        list.into_iter().map(|(_, function)| function).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> Function {
        let image = ImageId::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        Function::new(FunctionId::random(), name.parse().unwrap(), Language::Python, image, 1)
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
        let function = function("one");
        assert_eq!(function.last_executed(), None);
        function.executed(20);
        function.executed(10);
        assert_eq!(function.last_executed(), Some(20));
    }
}
