//! Who comes in: the token of the file, API tokens, sessions, and the first admin's code.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use shared::Millis;
use tokio::sync::Semaphore;

use super::auth::Token;
use super::logins::Logins;
use super::problem::Problem;
use crate::accounts::{Accounts, Digest, Reach, Role, Via, Who};
use crate::metrics::Metrics;
use crate::secrets;
use crate::store::{self, Readers};

/// Passwords that are checked at a time: each takes 19 MiB and a core for 20 ms.
const CHECKS_LIMIT: usize = 2;
/// What the file's token is called.
const FILE_TOKEN: &str = "api-token";

/// Everybody who may come in.
pub struct Gate {
    file_token: Digest,
    accounts: RwLock<Accounts>,
    /// Held by whoever reads the accounts anew: what was read first must not take the place of what was read last.
    reloading: Arc<tokio::sync::Mutex<()>>,
    logins: Mutex<Logins>,
    checks: Semaphore,
    code: Mutex<Option<Digest>>,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// Lets in whoever shows the file's token, and whom the collector's file knows. `code` is for the first admin.
    pub fn new(file_token: &Token, accounts: Accounts, code: Option<&str>, metrics: Arc<Metrics>) -> Self {
        Self {
            file_token: secrets::digest(file_token.as_str()),
            accounts: RwLock::new(accounts),
            reloading: Arc::default(),
            logins: Mutex::default(),
            checks: Semaphore::new(CHECKS_LIMIT),
            code: Mutex::new(code.map(secrets::digest)),
            metrics,
        }
    }

    /// Everybody, to read.
    pub(super) fn accounts(&self) -> RwLockReadGuard<'_, Accounts> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what has changed.
    pub(super) async fn reload(&self, readers: &Arc<Readers>) -> Result<(), Problem> {
        let _alone = self.reloading.lock().await;
        let readers = Arc::clone(readers);
        let accounts = tokio::task::spawn_blocking(move || readers.read(store::accounts)).await;
        *self.accounts.write().unwrap_or_else(PoisonError::into_inner) =
            accounts.map_err(Problem::internal)?.map_err(Problem::internal)?;
        Ok(())
    }

    /// Who shows a secret.
    pub(super) fn who(&self, secret: &str, now: Millis) -> Option<Who> {
        self.known(&secrets::digest(secret), now)
    }

    fn known(&self, digest: &Digest, now: Millis) -> Option<Who> {
        if *digest == self.file_token {
            let name = FILE_TOKEN.to_owned();
            return Some(Who { name, role: Role::Admin, reach: Reach::All, via: Via::Token, digest: *digest });
        }
        self.accounts().who(digest, now)
    }

    /// Whether somebody may still do and see what they could.
    pub(super) fn still_knows(&self, who: &Who, now: Millis) -> bool {
        self.known(&who.digest, now).is_some_and(|known| known == *who)
    }

    /// Counts a try to come in.
    pub(super) fn begin(&self, name: &str, address: IpAddr, now: Millis) -> Result<(), Problem> {
        self.logins().begin(name, address, now).map_err(|wait_ms| {
            self.count("refused");
            tracing::warn!(name, %address, "somebody tries too often to come in");
            Problem::too_many(wait_ms)
        })
    }

    /// A try was a good one.
    pub(super) fn succeeded(&self, name: &str, address: IpAddr) {
        self.count("good");
        self.logins().succeeded(name, address);
    }

    /// A try was none.
    pub(super) fn failed(&self, name: &str, address: IpAddr) {
        self.count("wrong");
        tracing::warn!(name, %address, "somebody could not come in");
    }

    fn count(&self, outcome: &str) {
        self.metrics.add("ward_logins_total", &format!("outcome=\"{outcome}\""), 1);
    }

    /// Whether a user has this password. Takes a while, of a user who doesn't exist as well.
    pub(super) async fn is_password(&self, name: &str, password: String) -> Result<bool, Problem> {
        let hash = self.accounts().user(name).map(|user| user.password.clone()).unwrap_or_default();
        self.off_the_runtime(move || secrets::fits(&password, &hash)).await
    }

    /// The hash of a password. Takes a while.
    pub(super) async fn hash(&self, password: String) -> Result<String, Problem> {
        self.off_the_runtime(move || secrets::hash(&password)).await
    }

    async fn off_the_runtime<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let _permit = self.checks.acquire().await.map_err(Problem::internal)?;
        tokio::task::spawn_blocking(work).await.map_err(Problem::internal)
    }

    /// Whether a text is the first admin's code.
    pub(super) fn is_code(&self, text: &str) -> bool {
        self.code().is_some_and(|code| code == secrets::digest(text))
    }

    /// The code has served.
    pub(super) fn forget_code(&self) {
        *self.code.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn code(&self) -> Option<Digest> {
        *self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
