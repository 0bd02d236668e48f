//! Who may do what: users, their sessions, API tokens, roles, and the regions that somebody may see. Pure.
//!
//! Secrets are known here by their digests only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use shared::{BranchId, Millis};

/// Longest name of a user or a token in bytes.
pub const NAME_LIMIT_BYTES: usize = 64;
/// Shortest and longest password in characters and bytes.
pub const PASSWORD_LIMITS: (usize, usize) = (10, 256);
/// How long a session lasts, in ms: a week.
pub const SESSION_MS: i64 = 7 * 24 * 3_600_000;

/// What a secret is known by.
pub type Digest = [u8; 32];

/// What somebody may do. Each role may do what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks at what is.
    Viewer,
    /// Also asks agents, agrees on maintenance and changes devices.
    Technician,
    /// Also changes branches, imports, agrees on service hours and reads reports. Always of some regions.
    RegionalManager,
    /// All, everywhere.
    Admin,
}

impl Role {
    /// Every role, from the one that may do least.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Technician, Self::RegionalManager, Self::Admin];

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Technician => "technician",
            Self::RegionalManager => "regional_manager",
            Self::Admin => "admin",
        }
    }

    /// By its word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// Which regions somebody may see. Nothing of the others is told, not even that they exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Reach {
    /// Every region.
    #[default]
    All,
    /// These.
    Regions(Arc<BTreeSet<BranchId>>),
}

impl Reach {
    /// Whether a region is within it.
    pub fn takes(&self, region: &BranchId) -> bool {
        match self {
            Self::All => true,
            Self::Regions(regions) => regions.contains(region),
        }
    }

    /// Whether it has no limits.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Its regions with commas between, nothing for all.
    pub fn words(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Regions(regions) => Some(regions.iter().map(BranchId::as_str).collect::<Vec<_>>().join(",")),
        }
    }

    /// From [`Self::words`].
    ///
    /// # Errors
    /// With the word that is no id.
    pub fn parse(words: Option<&str>) -> Result<Self, String> {
        let Some(words) = words else { return Ok(Self::All) };
        let ids: Result<BTreeSet<BranchId>, String> =
            words.split(',').filter(|word| !word.is_empty()).map(|word| word.parse().map_err(|_| word.to_owned())).collect();
        Ok(Self::Regions(Arc::new(ids?)))
    }
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// By which they are known.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// What they may see.
    pub reach: Reach,
    /// The hash of their password, with how it was made.
    pub password: String,
    /// When they were added.
    pub created: Millis,
    /// When they last came in.
    pub last_login: Option<Millis>,
}

/// What a program shows instead of a name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its number.
    pub id: i64,
    /// What it is for.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// What it may do.
    pub role: Role,
    /// What it may see.
    pub reach: Reach,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created: Millis,
    /// Until when it is taken; for ever without.
    pub expires: Option<Millis>,
}

/// That somebody has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The digest of its secret.
    pub digest: Digest,
    /// Whose it is.
    pub user: String,
    /// Until when it is taken.
    pub expires: Millis,
}

/// How somebody has shown who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// By a session, so from the page.
    Session,
    /// By a token.
    Token,
}

impl Via {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Token => "token",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The user's or the token's name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// What they may see.
    pub reach: Reach,
    /// How they have shown it.
    pub via: Via,
    /// By which secret.
    pub digest: Digest,
}

/// Everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: BTreeMap<String, User>,
    tokens: HashMap<Digest, ApiToken>,
    sessions: HashMap<Digest, Session>,
}

impl Accounts {
    /// All that is known.
    pub fn new(users: Vec<User>, tokens: Vec<ApiToken>, sessions: Vec<Session>) -> Self {
        Self {
            users: users.into_iter().map(|user| (user.name.clone(), user)).collect(),
            tokens: tokens.into_iter().map(|token| (token.digest, token)).collect(),
            sessions: sessions.into_iter().map(|session| (session.digest, session)).collect(),
        }
    }

    /// Users by name.
    pub fn users(&self) -> impl ExactSizeIterator<Item = &User> {
        self.users.values()
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Tokens by number.
    pub fn tokens(&self) -> Vec<&ApiToken> {
        let mut tokens: Vec<&ApiToken> = self.tokens.values().collect();
        tokens.sort_by_key(|token| token.id);
        tokens
    }

    /// Who shows a secret, if anybody may who does. A user who was removed has no sessions, and a session has its user's
    /// role of now, not that of its beginning.
    pub fn who(&self, digest: &Digest, now: Millis) -> Option<Who> {
        if let Some(session) = self.sessions.get(digest).filter(|session| now < session.expires) {
            let User { name, role, reach, .. } = self.users.get(&session.user)?.clone();
            return Some(Who { name, role, reach, via: Via::Session, digest: *digest });
        }
        let token = self.tokens.get(digest).filter(|token| token.expires.is_none_or(|expires| now < expires))?;
        let ApiToken { name, role, reach, .. } = token.clone();
        Some(Who { name, role, reach, via: Via::Token, digest: *digest })
    }
}

/// What is wrong with a name of a user or a token, if anything is.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || name.len() > NAME_LIMIT_BYTES || !name.chars().all(fits) {
        return Err(format!("has 1 to {NAME_LIMIT_BYTES} characters of a-z, A-Z, 0-9, '.', '_', '-' and '@'"));
    }
    Ok(())
}

/// What is wrong with a password, if anything is.
pub fn check_password(password: &str) -> Result<(), String> {
    let (least, most_bytes) = PASSWORD_LIMITS;
    if password.chars().count() < least || password.len() > most_bytes {
        return Err(format!("has at least {least} characters and at most {most_bytes} bytes"));
    }
    Ok(())
}

/// What is wrong with a role that has this reach, if anything is.
pub fn check_reach(role: Role, reach: &Reach) -> Result<(), String> {
    match (role, reach) {
        (Role::Admin, Reach::Regions(_)) => Err("an admin's are all: leave it out".to_owned()),
        (Role::RegionalManager, Reach::All) => Err("a regional manager has some: name them".to_owned()),
        (_, Reach::Regions(regions)) if regions.is_empty() => Err("must name a region, or be null for all".to_owned()),
        (_, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(words: &str) -> Reach {
        Reach::parse(Some(words)).expect("ids")
    }

    #[test]
    fn a_session_is_its_users_as_they_are_now_and_ends() {
        let user = |role| User {
            name: "nino".into(),
            role,
            reach: regions("guria"),
            password: String::new(),
            created: Millis(0),
            last_login: None,
        };
        let session = Session { digest: [1; 32], user: "nino".into(), expires: Millis(100) };
        let who = |users: Vec<User>, now| Accounts::new(users, vec![], vec![session.clone()]).who(&[1; 32], Millis(now));
        assert_eq!(who(vec![user(Role::Viewer)], 99).map(|who| (who.role, who.via)), Some((Role::Viewer, Via::Session)));
        assert_eq!(who(vec![user(Role::Technician)], 99).map(|who| who.role), Some(Role::Technician));
        assert_eq!(who(vec![user(Role::Viewer)], 100), None);
        assert_eq!(who(vec![], 99), None, "the user was removed");
        assert_eq!(Accounts::new(vec![user(Role::Viewer)], vec![], vec![session.clone()]).who(&[2; 32], Millis(0)), None);
    }

    #[test]
    fn a_token_ends_when_it_says() {
        let token = |expires| ApiToken {
            id: 1,
            name: "grafana".into(),
            digest: [7; 32],
            role: Role::Viewer,
            reach: Reach::All,
            created_by: "admin".into(),
            created: Millis(0),
            expires,
        };
        let is_taken = |expires, now| Accounts::new(vec![], vec![token(expires)], vec![]).who(&[7; 32], Millis(now)).is_some();
        assert!(is_taken(None, i64::MAX) && is_taken(Some(Millis(10)), 9) && !is_taken(Some(Millis(10)), 10));
    }

    #[test]
    fn a_reach_is_written_as_it_is_read() {
        let some = regions("guria,imereti");
        assert_eq!(Reach::parse(some.words().as_deref()), Ok(some.clone()));
        assert_eq!(Reach::parse(None), Ok(Reach::All));
        assert_eq!(Reach::parse(Some("gu ria")), Err("gu ria".to_owned()));
        assert!(some.takes(&"guria".parse().expect("an id")) && !some.takes(&"kakheti".parse().expect("an id")));
    }

    #[test]
    fn roles_and_reaches_that_contradict_each_other_are_refused() {
        for (role, reach, fits) in [
            (Role::Admin, Reach::All, true),
            (Role::Admin, regions("guria"), false),
            (Role::RegionalManager, Reach::All, false),
            (Role::RegionalManager, regions("guria"), true),
            (Role::Viewer, regions(""), false),
            (Role::Viewer, Reach::All, true),
        ] {
            assert_eq!(check_reach(role, &reach).is_ok(), fits, "{role:?} {reach:?}");
        }
        assert!(Role::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
