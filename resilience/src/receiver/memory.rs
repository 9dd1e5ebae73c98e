use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::answer::Answer;
use super::fingerprint::Fingerprint;
use super::records::{Caller, Claim, Found, RecordId, Records, RecordsError, Share};
use crate::error::{Check, SettingsError};
use crate::policy::IdempotencyKey;

/// How much [`MemoryRecords`] hold, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemorySettings {
    /// How long an answer is kept. Default: 24 h.
    #[serde(with = "crate::duration_text")]
    pub retention: Duration,
    /// Keys of all callers; some 500 bytes each. Further ones are refused with 503. Default: 100,000.
    pub keys: usize,
    /// Keys of one group of callers, such as a tenant, so that the callers of one together do not take all. Default: 50,000.
    pub keys_of_a_group: usize,
    /// Keys of one caller, so that none takes all. Default: 10,000.
    pub keys_of_a_caller: usize,
    /// Bytes of all kept headers and bodies. When more come, the oldest answers lose their bodies and their headers but for
    /// `location`, and that one too when nothing else is left. Default: 64 MiB.
    pub bytes: usize,
}

impl Default for MemorySettings {
    fn default() -> Self {
        let retention = Duration::from_secs(24 * 3600);
        Self { retention, keys: 100_000, keys_of_a_group: 50_000, keys_of_a_caller: 10_000, bytes: 64 * 1024 * 1024 }
    }
}

/// Records of one process, in memory of bounded size. They end with the process. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryRecords {
    kept: Arc<Mutex<Kept>>,
    settings: MemorySettings,
}

#[derive(Debug, Default)]
struct Kept {
    callers: HashMap<Caller, HashMap<IdempotencyKey, Record>>,
    keys: usize,
    /// How many of them the callers of each group have.
    of_groups: HashMap<Arc<str>, usize>,
    bytes: usize,
    /// Kept answers, oldest first.
    answered: VecDeque<(Instant, RecordId)>,
    /// How many of `answered`, from the oldest, have lost their bodies.
    without_body: usize,
    /// How many of them have lost their last header too.
    without_headers: usize,
}

#[derive(Debug)]
struct Record {
    fingerprint: Fingerprint,
    answer: Option<Answer>,
}

impl MemoryRecords {
    /// No records yet.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting that cannot work.
    pub fn new(settings: MemorySettings) -> Result<Self, SettingsError> {
        let check = Check::of("receiver");
        check.not_zero("memory.retention", settings.retention)?;
        check.not_zero("memory.keys", settings.keys)?;
        check.not_zero("memory.keys_of_a_group", settings.keys_of_a_group)?;
        check.not_zero("memory.keys_of_a_caller", settings.keys_of_a_caller)?;
        Ok(Self { kept: Arc::default(), settings })
    }

    /// Keys that are held at this moment, in flight or answered.
    pub fn keys(&self) -> usize {
        self.lock().keys
    }

    /// Bytes of headers and bodies that are held at this moment.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records for MemoryRecords {
    type Claim = MemoryClaim;

    async fn claim(&self, id: &RecordId, fingerprint: &Fingerprint) -> Result<Found<MemoryClaim>, RecordsError> {
        let mut kept = self.lock();
        kept.forget_expired(self.settings.retention);
        if let Some(record) = kept.callers.get(&id.caller).and_then(|keys| keys.get(&id.key)) {
            let fingerprint = record.fingerprint;
            return Ok(match &record.answer {
                Some(answer) => Found::Answered(fingerprint, answer.clone()),
                None => Found::InFlight(fingerprint),
            });
        }
        if let Some(share) = kept.used_up(&id.caller, &self.settings) {
            let free_in = kept.free_in(share, &id.caller, self.settings.retention);
            return Err(RecordsError::Full { share, free_in });
        }
        let record = Record { fingerprint: *fingerprint, answer: None };
        kept.callers.entry(id.caller.clone()).or_default().insert(id.key.clone(), record);
        kept.keys += 1;
        if let Some(group) = &id.caller.group {
            *kept.of_groups.entry(group.clone()).or_default() += 1;
        }
        Ok(Found::New(MemoryClaim { records: self.clone(), id: Some(id.clone()) }))
    }
}

/// A claim on [`MemoryRecords`].
#[derive(Debug)]
pub struct MemoryClaim {
    records: MemoryRecords,
    /// `None` once the answer is kept.
    id: Option<RecordId>,
}

impl Claim for MemoryClaim {
    async fn keep(mut self, answer: Answer) -> Result<(), RecordsError> {
        if let Some(id) = self.id.take() {
            self.records.lock().keep(id, answer, self.records.settings.bytes);
        }
        Ok(())
    }
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.records.lock().remove(&id);
        }
    }
}

impl Kept {
    fn record(&mut self, id: &RecordId) -> Option<&mut Record> {
        self.callers.get_mut(&id.caller)?.get_mut(&id.key)
    }

    /// The share in which there is no room for another key of this caller.
    fn used_up(&self, caller: &Caller, most: &MemorySettings) -> Option<Share> {
        let of_caller = self.callers.get(caller).map_or(0, HashMap::len);
        let of_group = caller.group.as_ref().and_then(|group| self.of_groups.get(group)).copied().unwrap_or_default();
        if of_caller >= most.keys_of_a_caller {
            Some(Share::Caller)
        } else if of_group >= most.keys_of_a_group {
            Some(Share::Group)
        } else {
            (self.keys >= most.keys).then_some(Share::All)
        }
    }

    /// When the oldest answer of a share is forgotten; `None` while all its requests are in flight.
    fn free_in(&self, share: Share, caller: &Caller, retention: Duration) -> Option<Duration> {
        let mut answered = self.answered.iter();
        let (at, _) = answered.find(|(_, id)| match share {
            Share::Caller => id.caller == *caller,
            Share::Group => id.caller.group == caller.group,
            Share::All => true,
        })?;
        Some(retention.saturating_sub(at.elapsed()))
    }

    fn keep(&mut self, id: RecordId, answer: Answer, most: usize) {
        let size = answer.size();
        if let Some(record) = self.record(&id) {
            record.answer = Some(answer);
            self.bytes += size;
            self.answered.push_back((Instant::now(), id));
        }
        while self.bytes > most {
            let forgotten = if let Some((_, oldest)) = self.answered.get(self.without_body).cloned() {
                self.without_body += 1;
                self.shrink(&oldest, Answer::forget_body)
            } else if let Some((_, oldest)) = self.answered.get(self.without_headers).cloned() {
                self.without_headers += 1;
                self.shrink(&oldest, Answer::forget_headers)
            } else {
                return;
            };
            self.bytes -= forgotten;
        }
    }

    /// How many bytes that frees.
    fn shrink(&mut self, id: &RecordId, forget: fn(&mut Answer)) -> usize {
        let Some(answer) = self.record(id).and_then(|record| record.answer.as_mut()) else { return 0 };
        let whole = answer.size();
        forget(answer);
        whole - answer.size()
    }

    fn forget_expired(&mut self, retention: Duration) {
        while self.answered.front().is_some_and(|(at, _)| at.elapsed() >= retention) {
            let Some((_, id)) = self.answered.pop_front() else { return };
            self.without_body = self.without_body.saturating_sub(1);
            self.without_headers = self.without_headers.saturating_sub(1);
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &RecordId) {
        let Some(keys) = self.callers.get_mut(&id.caller) else { return };
        let Some(record) = keys.remove(&id.key) else { return };
        if keys.is_empty() {
            self.callers.remove(&id.caller);
        }
        self.keys -= 1;
        if let Some(group) = &id.caller.group
            && let Some(keys) = self.of_groups.get_mut(group)
        {
            *keys -= 1;
            if *keys == 0 {
                self.of_groups.remove(group);
            }
        }
        self.bytes -= record.answer.as_ref().map_or(0, Answer::size);
    }
}
