//! Which functions there are: answered from memory. No I/O.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::store::{Executions, Image, Record};
use crate::types::{FunctionId, FunctionName, Language};

/// A function that can be executed.
#[derive(Debug)]
pub struct Function {
    /// Its id.
    pub id: FunctionId,
    /// What its owner calls it.
    pub name: FunctionName,
    /// What it is written in.
    pub language: Language,
    /// Unix seconds.
    pub created_at: u64,
    image: Mutex<Image>,
    executions: Mutex<Executions>,
    deleted: AtomicBool,
    /// When its image was last made again, in Unix milliseconds.
    made_again: AtomicU64,
    /// Of its zip's content, in bytes.
    pub unpacked_size: u64,
}

impl From<Record> for Function {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            name: record.name,
            language: record.language,
            created_at: record.created_at,
            image: Mutex::new(record.image),
            executions: Mutex::new(record.executions),
            deleted: AtomicBool::new(false),
            made_again: AtomicU64::new(0),
            unpacked_size: record.unpacked_size,
        }
    }
}

impl Function {
    /// What it runs from.
    pub fn image(&self) -> Image {
        lock(&self.image).clone()
    }

    /// Has it run from this from now on, which was made at this time, in Unix milliseconds.
    pub fn set_image(&self, image: Image, made_at: u64) {
        *lock(&self.image) = image;
        self.made_again.store(made_at, Ordering::Relaxed);
    }

    /// When its image was last of use, in Unix milliseconds, but for the fraction of a second.
    pub fn last_used(&self) -> u64 {
        let seconds = self.executions().last.unwrap_or_default().max(self.created_at);
        self.made_again.load(Ordering::Relaxed).max(seconds * 1000)
    }

    /// Notes that its image is there after all.
    pub fn find_image(&self, id: &str) {
        let mut image = lock(&self.image);
        image.is_there |= image.id.as_str() == id;
    }

    /// Notes that this image of it is gone. False when it has another meanwhile, or that was known.
    pub fn lose_image(&self, id: &str) -> bool {
        let mut image = lock(&self.image);
        image.id.as_str() == id && std::mem::take(&mut image.is_there)
    }

    /// How often it was executed and when last.
    pub fn executions(&self) -> Executions {
        *lock(&self.executions)
    }

    /// Whether it was deleted. Who holds it may have got it before that.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Notes that it was deleted.
    pub fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    fn executed(&self, at: u64) {
        let mut executions = lock(&self.executions);
        executions.count += 1;
        // A clock that was set back does not take anything back.
        executions.last = executions.last.max(Some(at));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All functions, with the number in which each came.
#[derive(Debug, Default)]
pub struct Registry {
    functions: RwLock<HashMap<FunctionId, (u64, Arc<Function>)>>,
    next: AtomicU64,
    /// Those that were executed since they were last asked for.
    executed: Mutex<HashSet<FunctionId>>,
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

    /// Notes an execution at this time, in Unix seconds.
    pub fn executed(&self, function: &Function, at: u64) {
        function.executed(at);
        lock(&self.executed).insert(function.id);
    }

    /// How often those functions were executed that were since the last call.
    pub fn take_executed(&self) -> Vec<(FunctionId, Executions)> {
        let ids = std::mem::take(&mut *lock(&self.executed));
        ids.into_iter().filter_map(|id| Some((id, self.get(id)?.executions()))).collect()
    }

    /// The function of this id.
    pub fn get(&self, id: FunctionId) -> Option<Arc<Function>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(&id).map(|(_, function)| Arc::clone(function))
    }

    /// Of the functions of this name the one that came last.
    pub fn by_name(&self, name: &str) -> Option<Arc<Function>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        let named = functions.values().filter(|(_, function)| function.name.as_str() == name);
        named.max_by_key(|&&(number, _)| number).map(|(_, function)| Arc::clone(function))
    }

    /// Takes a function out. One of two who try gets it.
    pub fn remove(&self, id: FunctionId) -> Option<Arc<Function>> {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.remove(&id).map(|(_, function)| function)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    use crate::types::ImageId;

    fn function(name: &str) -> Function {
        let image = ImageId::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        Function::from(Record {
            id: FunctionId::random(),
            name: name.parse().unwrap(),
            language: Language::Python,
            entry: None,
            created_at: 1,
            executions: Executions::default(),
            zip_size: 1,
            zip_sha256: String::new(),
            unpacked_size: 1,
            image: Image { id: image, size: 1, is_there: true },
        })
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
        assert_eq!(registry.by_name("f7").unwrap().id, last.id);
        assert!(registry.by_name("g").is_none());
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
        assert_eq!(registry.take_executed(), [(function.id, executions)]);
        assert_eq!(registry.take_executed(), []);
    }

    #[test]
    fn only_the_image_that_is_meant_gets_lost() {
        let function = function("one");
        let (first, second) = (function.image(), ImageId::parse(&format!("sha256:{}", "1".repeat(64))).unwrap());
        assert!(function.lose_image(first.id.as_str()) && !function.lose_image(first.id.as_str()));
        assert!(!function.image().is_there);
        function.set_image(Image { id: second.clone(), ..first.clone() }, 5000);
        assert_eq!(function.last_used(), 5000);
        assert!(!function.lose_image(first.id.as_str()));
        assert!(function.image().is_there && function.image().id == second);
    }
}
