//! A function as it stands: what it runs, how, and under which name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Version;
use crate::domain::settings::Settings;
use crate::domain::{Executions, FunctionId, FunctionName, Record};

/// A function that can be executed. It never changes: what changes a function puts another of these in its place.
#[derive(Debug)]
pub struct Function {
    /// Its id.
    pub id: FunctionId,
    /// What its owner calls it.
    pub name: FunctionName,
    /// Unix seconds.
    pub created_at: u64,
    /// What its owner has set.
    pub settings: Settings,
    /// What is run.
    pub version: Arc<Version>,
    /// What was run before, and is kept ready for a rollback.
    pub previous: Option<Arc<Version>>,
    /// Of what its instances are.
    pub revision: Revision,
    shared: Arc<FunctionShared>,
    retired: Arc<AtomicBool>,
}

/// What instances are made of, and belong to: a version, and the limits of a container. Told from all others of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Of which function.
    pub function: FunctionId,
    number: u64,
}

/// What a function shares with those in whose place it came.
#[derive(Debug, Default)]
pub struct FunctionShared {
    executions: Mutex<Executions>,
    last_version: AtomicU32,
    /// Held while a version is made ready: one after the other, so that the last to come is the one that stays.
    pub deploying: tokio::sync::Mutex<()>,
    /// Held while what became of it takes its place.
    pub switching: tokio::sync::Mutex<()>,
}

impl From<Record> for Function {
    fn from(record: Record) -> Self {
        let version = |record_of_version| Arc::new(Version::new(record.id, record_of_version));
        Self {
            id: record.id,
            name: record.name,
            created_at: record.created_at,
            settings: record.settings,
            version: version(record.version),
            previous: record.previous.map(version),
            revision: Revision::next(record.id),
            shared: Arc::new(FunctionShared {
                executions: Mutex::new(record.executions),
                last_version: AtomicU32::new(record.last_version),
                ..FunctionShared::default()
            }),
            retired: Arc::default(),
        }
    }
}

impl Function {
    /// What is to take its place: with this name, these settings, and this version, if it is to be another.
    pub fn successor(&self, name: FunctionName, settings: Settings, version: Option<Arc<Version>>) -> Self {
        let (mut next, mut previous) = (Arc::clone(&self.version), self.previous.clone());
        if let Some(version) = version.filter(|version| version.id != self.version.id) {
            previous = Some(std::mem::replace(&mut next, version));
        }
        let is_same =
            |settings: &Settings| (settings.memory, settings.cpus) == (self.settings.memory, self.settings.cpus);
        let (revision, retired) = if next.id == self.version.id && is_same(&settings) {
            (self.revision, Arc::clone(&self.retired))
        } else {
            (Revision::next(self.id), Arc::default())
        };
        Self {
            id: self.id,
            name,
            created_at: self.created_at,
            settings,
            version: next,
            previous,
            revision,
            shared: Arc::clone(&self.shared),
            retired,
        }
    }

    /// The versions whose images are of use.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        std::iter::once(&self.version).chain(&self.previous)
    }

    /// When the image of its version was last of use, in Unix milliseconds, but for the fraction of a second.
    pub fn last_used(&self) -> u64 {
        let seconds = self.executions().last.unwrap_or_default().max(self.version.created_at);
        self.version.rebuilt_at().max(seconds * 1000)
    }

    /// How often it was executed and when last.
    pub fn executions(&self) -> Executions {
        *self.shared.executions.lock()
    }

    /// What it shares with those in whose place it came.
    pub fn shared(&self) -> &Arc<FunctionShared> {
        &self.shared
    }

    /// Whether another revision has taken the place of its own, or it was deleted. Who holds it may have got it before that.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Notes that its revision was replaced, or it was deleted.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(super) fn executed(&self, at: u64) {
        let mut executions = self.shared.executions.lock();
        executions.count += 1;
        // A clock that was set back does not take anything back.
        executions.last = executions.last.max(Some(at));
    }
}

impl FunctionShared {
    /// The number of a version to be made; no other gets it, even if nothing comes of it.
    pub fn next_version(&self) -> u32 {
        self.last_version.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Revision {
    fn next(function: FunctionId) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self { function, number: LAST.fetch_add(1, Ordering::Relaxed) }
    }
}
