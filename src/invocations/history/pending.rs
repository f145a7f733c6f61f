//! Records that are not in the store yet.

use bytes::Bytes;

use super::History;
use crate::domain::{Destined, InvocationRecord, Page, Place};

/// The size of a record without its input and output, in bytes.
const RECORD: usize = 512;

/// An invocation under way. A drop keeps the record as far as the record is known, as when the client leaves. The
/// history keeps the beginning of an output, up to INVOCATION_OUTPUT_SIZE.
#[must_use]
#[derive(Debug)]
pub struct PendingRecord<'a> {
    pub(super) history: &'a History,
    pub(super) record: InvocationRecord,
}

impl PendingRecord<'_> {
    /// The record so far.
    pub fn record(&mut self) -> &mut InvocationRecord {
        &mut self.record
    }
}

impl Drop for PendingRecord<'_> {
    fn drop(&mut self) {
        let blank = InvocationRecord::queued(self.record.function_id, 0, Bytes::new());
        let mut record = std::mem::replace(&mut self.record, blank);
        record.stdout = self.history.cut(&record.stdout);
        record.stderr = self.history.cut(&record.stderr);
        self.history.pending().push(record);
    }
}

/// The records that wait for the store, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) records: Vec<InvocationRecord>,
    /// The size of the records.
    pub(super) bytes: usize,
}

impl Pending {
    /// The pending records as the store would list the rows, when the first row gets this place.
    pub(super) fn page(&self, page: &Page, first: Place) -> Vec<(Place, InvocationRecord)> {
        let place = |n: usize| Place { number: first.number + n as u64, ..first };
        let placed = self.records.iter().enumerate().map(|(n, record)| (place(n), record)).rev();
        let before = placed.filter(|&(place, _)| page.before.is_none_or(|before| place < before));
        let found = before.filter(|(_, record)| page.has(record)).take(page.limit as usize);
        let blank = Bytes::new;
        found
            .map(|(place, record)| {
                (place, InvocationRecord { input: blank(), stdout: blank(), stderr: blank(), ..record.clone() })
            })
            .collect()
    }

    /// Forgets the older half of the records. Returns the number of these records.
    pub(super) fn forget_half(&mut self) -> usize {
        let half = self.records.len() / 2;
        let forgotten: usize = self.records.drain(..half).map(|record| bytes_of(&record)).sum();
        self.bytes = self.bytes.saturating_sub(forgotten);
        half
    }

    /// Takes back a batch that the store has not taken. The records of the batch are older than all others.
    pub(super) fn take_back(&mut self, batch: Self) {
        let later = std::mem::replace(&mut self.records, batch.records);
        self.records.extend(later);
        self.bytes += batch.bytes;
    }

    fn push(&mut self, record: InvocationRecord) {
        self.bytes += bytes_of(&record);
        self.records.push(record);
    }
}

fn bytes_of(record: &InvocationRecord) -> usize {
    let text = |destined: &Destined| destined.to.len() + destined.reason.as_ref().map_or(0, String::len);
    let network: usize = record.network.iter().map(|destined| size_of::<Destined>() + text(destined)).sum();
    RECORD + record.input.len() + record.stdout.len() + record.stderr.len() + network
}
