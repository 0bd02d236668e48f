//! What the branches' boxes last told of themselves: the program that they run.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::update::Running;
use shared::{BranchId, Millis, StreamId};

/// What one box has told. Of each the newest, so that this stays as small as the inventory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// What it runs, when it said so, and in which stream.
    pub running: Option<(Running, Millis, Option<StreamId>)>,
}

/// All boxes.
#[derive(Debug, Default)]
pub struct Boxes(Mutex<HashMap<BranchId, Told>>);

impl Boxes {
    fn lock(&self) -> MutexGuard<'_, HashMap<BranchId, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A box says what it runs.
    pub fn runs(&self, branch: BranchId, running: Running, stream: Option<StreamId>, now: Millis) {
        self.lock().entry(branch).or_default().running = Some((running, now, stream));
    }

    /// What a box has told.
    pub fn of(&self, branch: &BranchId) -> Told {
        self.lock().get(branch).cloned().unwrap_or_default()
    }
}
