//! A function in memory: its name, its settings and its versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Version;
use crate::config::PreloadLimit;
use crate::domain::settings::Settings;
use crate::domain::{Executions, FunctionId, FunctionName, Language, Preload, Preloaded, Record, VersionRecord};

/// A function that can be executed. A `Function` never changes: each change of the function puts a successor in its
/// place.
#[derive(Debug)]
pub struct Function {
    /// The function's id.
    pub id: FunctionId,
    /// The function's place in the order of submits.
    pub number: u64,
    /// The number of the function's state in the store.
    pub generation: u64,
    /// The function's name.
    pub name: FunctionName,
    /// When the function was created, in Unix seconds.
    pub created_at: u64,
    /// The function's own settings.
    pub settings: Settings,
    /// The version that executions run.
    pub version: Arc<Version>,
    /// The version that ran before. Its image is kept for a rollback.
    pub previous: Option<Arc<Version>>,
    /// The revision that the function's instances belong to.
    pub revision: Revision,
    shared: Arc<FunctionShared>,
    preloading: Arc<Mutex<Preloading>>,
    retired: Arc<AtomicBool>,
}

/// What is known of preloading for a revision.
#[derive(Debug)]
enum Preloading {
    /// No instance has found out yet.
    Unknown,
    /// An instance has found out.
    Known(Preloaded),
    /// An instance that looked for modules to preload has ended.
    Impossible,
}

/// A version together with the settings of an instance. Each instance belongs to a revision. No two revisions of this
/// process are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// The function's id.
    pub function: FunctionId,
    number: u64,
}

/// The state that a function shares with its predecessors and successors.
#[derive(Debug, Default)]
pub struct FunctionShared {
    executions: Mutex<Executions>,
    /// Held while a version is built and made ready. Updates run one after the other, so that the version of the last
    /// update stays.
    pub deploying: tokio::sync::Mutex<()>,
    /// Held while a successor takes the function's place, on disk and in the registry.
    pub switching: tokio::sync::Mutex<()>,
}

impl From<Record> for Function {
    fn from(record: Record) -> Self {
        let version = |record_of_version| Arc::new(Version::new(record.id, record_of_version));
        Self {
            id: record.id,
            number: record.number,
            generation: record.generation,
            name: record.name,
            created_at: record.created_at,
            settings: record.settings,
            version: version(record.version),
            previous: record.previous.map(version),
            revision: Revision::next(record.id),
            preloading: Arc::new(Mutex::new(record.preloaded.map_or(Preloading::Unknown, Preloading::Known))),
            shared: Arc::new(FunctionShared { executions: Mutex::new(record.executions), ..FunctionShared::default() }),
            retired: Arc::default(),
        }
    }
}

impl Function {
    /// The function's successor with this name, these settings and this version; with None, the version stays. The
    /// revision stays when the version stays and the settings fit the instances.
    pub fn successor(&self, name: FunctionName, settings: Settings, version: Option<Arc<Version>>) -> Self {
        let (mut next, mut previous) = (Arc::clone(&self.version), self.previous.clone());
        if let Some(version) = version.filter(|version| version.id != self.version.id) {
            previous = Some(std::mem::replace(&mut next, version));
        }
        let (revision, preloading, retired) =
            if next.id == self.version.id && settings.fit_instance_of(&self.settings, next.language) {
                (self.revision, Arc::clone(&self.preloading), Arc::clone(&self.retired))
            } else {
                (Revision::next(self.id), Arc::new(Mutex::new(Preloading::Unknown)), Arc::default())
            };
        Self {
            id: self.id,
            number: self.number,
            generation: self.generation + 1,
            name,
            created_at: self.created_at,
            settings,
            version: next,
            previous,
            revision,
            preloading,
            shared: Arc::clone(&self.shared),
            retired,
        }
    }

    /// The function as another node has changed it. The revision stays when the version and what instances depend on
    /// stay.
    pub fn followed_by(&self, record: Record) -> Self {
        let known = |record: VersionRecord| {
            let known = self.versions().find(|version| version.id.number == record.number);
            known.map_or_else(|| Arc::new(Version::new(self.id, record)), Arc::clone)
        };
        let (version, previous) = (known(record.version), record.previous.map(known));
        let next = self.successor(record.name, record.settings, Some(version));
        let found = record.preloaded.filter(|_| next.revision != self.revision);
        if let Some(found) = found {
            next.note_preloaded(&found);
        }
        Self { generation: record.generation, previous, ..next }
    }

    /// The function with the number that the store gave to the function.
    pub fn numbered(&self, number: u64) -> Self {
        let next = self.successor(self.name.clone(), self.settings.clone(), None);
        Self { number, generation: self.generation, ..next }
    }

    /// The versions whose images are needed: the current version and the previous version.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        std::iter::once(&self.version).chain(&self.previous)
    }

    /// When the image of the current version was last used or built again, in Unix milliseconds. Executions count with
    /// a precision of one second.
    pub fn last_used(&self) -> u64 {
        let seconds = self.executions().last.unwrap_or_default().max(self.version.created_at);
        self.version.rebuilt_at().max(seconds * 1000)
    }

    /// How often the function was executed, and when last.
    pub fn executions(&self) -> Executions {
        *self.shared.executions.lock()
    }

    /// The state that the function shares with its predecessors and successors.
    pub fn shared(&self) -> &Arc<FunctionShared> {
        &self.shared
    }

    /// What the function gets preloaded where the operator allows no more than `limit`. Programs in Go have nothing to
    /// preload.
    pub fn preload(&self, limit: PreloadLimit) -> Preload {
        match self.version.language {
            Language::Python => self.settings.preload.as_ref().unwrap_or(&Preload::Auto).within(limit),
            Language::Go => Preload::Off,
        }
    }

    /// What the next instance is to preload of `wish`, with what is known of that.
    pub fn preload_plan(&self, wish: Preload) -> (Preload, Option<Preloaded>) {
        let asked = wish.to_string();
        match &*self.preloading.lock() {
            Preloading::Impossible => (Preload::Off, None),
            Preloading::Known(found) if found.asked == asked => (wish, Some(found.clone())),
            Preloading::Known(_) | Preloading::Unknown => (wish, None),
        }
    }

    /// What an instance of this revision has found out about preloading.
    pub fn preloaded(&self) -> Option<Preloaded> {
        match &*self.preloading.lock() {
            Preloading::Known(found) => Some(found.clone()),
            Preloading::Unknown | Preloading::Impossible => None,
        }
    }

    /// Notes what an instance has preloaded.
    pub fn note_preloaded(&self, found: &Preloaded) {
        if found.asked != Preload::Off.to_string() {
            *self.preloading.lock() = Preloading::Known(found.clone());
        }
    }

    /// Notes that an instance ended while the instance imported modules. With `was_known` the instance did as an
    /// earlier instance had found out, and the next instance looks again; otherwise the next instance preloads nothing.
    pub fn note_preload_failed(&self, was_known: bool) {
        let mut preloading = self.preloading.lock();
        match &*preloading {
            Preloading::Known(_) if was_known => *preloading = Preloading::Unknown,
            Preloading::Unknown | Preloading::Known(_) if !was_known => *preloading = Preloading::Impossible,
            Preloading::Unknown | Preloading::Known(_) | Preloading::Impossible => {}
        }
    }

    /// Whether another revision has taken the place of the function's own, or the function was deleted. A caller may
    /// have looked the function up before that.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Notes that the function's revision was replaced, or that the function was deleted.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Notes the count of executions in the store, which has those of other nodes.
    pub fn observe(&self, stored: Executions) {
        let mut executions = self.shared.executions.lock();
        executions.count = executions.count.max(stored.count);
        executions.last = executions.last.max(stored.last);
    }

    pub(super) fn executed(&self, executions: Executions) {
        self.shared.executions.lock().add(executions);
    }
}

impl Revision {
    fn next(function: FunctionId) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self { function, number: LAST.fetch_add(1, Ordering::Relaxed) }
    }
}
