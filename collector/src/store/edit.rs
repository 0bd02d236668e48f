//! Changes that people make, each with a line of the audit in the same transaction.

use rusqlite::Connection;
use serde_json::{Value, json};
use shared::{DeviceId, Millis};

use super::StoreError;
use super::accounts::{self, AccountEdit};
use super::evidence;
use super::inventory::{self, InventoryEdit};
use super::maintenance::{self, ScheduleEdit};
use crate::accounts::Reach;

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// What availability leaves out.
    Schedule(ScheduleEdit),
    /// Who may do what.
    Account(AccountEdit),
    /// What there is.
    Inventory(InventoryEdit),
    /// The box at a device's address is accepted.
    AcceptIdentity {
        /// The device's number.
        no: u32,
        /// Its id.
        device: DeviceId,
    },
}

/// A change, and who makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The user's or token's name.
    pub actor: String,
    /// What is changed.
    pub edit: Edit,
}

/// Why a change can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// There is nothing of that name or number.
    #[error("there is nothing of that name")]
    NotFound,
    /// There are too many.
    #[error("there are 10,000 already")]
    Full,
    /// It contradicts what there is.
    #[error("{0}")]
    Taken(String),
    /// The file can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a change and writes it down; the number of what was added or taken away. The outer error undoes everything, and a
/// refusal has to.
pub(super) fn edit(db: &Connection, change: &Change, now: Millis) -> Result<Result<i64, EditError>, StoreError> {
    let done = match &change.edit {
        Edit::Schedule(edit) => maintenance::edit(db, edit, now)?,
        Edit::Account(edit) => accounts::edit(db, edit, now)?,
        Edit::Inventory(edit) => inventory::edit(db, edit, now)?,
        Edit::AcceptIdentity { no, .. } => match evidence::accept_identity(db, *no, now)? {
            true => Ok(i64::from(*no)),
            false => Err(EditError::NotFound),
        },
    };
    if let Ok(id) = &done {
        let (action, target, detail) = words(&change.edit, *id);
        accounts::note(db, now, &change.actor, (action, &target, &detail.to_string()))?;
    }
    Ok(done)
}

/// What the audit says of a change: what was done, to what, and more about it. Never a secret, nor its digest.
fn words(edit: &Edit, id: i64) -> (&'static str, String, Value) {
    let reach = |reach: &Reach| json!(reach.words().map(|words| words.split(',').map(str::to_owned).collect::<Vec<_>>()));
    let scope = |scope: &crate::schedule::Scope| match scope.words() {
        (scope, None) => scope.to_owned(),
        (scope, Some(key)) => format!("{scope} {key}"),
    };
    match edit {
        Edit::Schedule(ScheduleEdit::AddWindow(window)) => (
            "maintenance.add",
            scope(&window.scope),
            json!({ "id": id, "from": window.span.from.to_string(), "to": window.span.to.to_string(), "reason": window.reason }),
        ),
        Edit::Schedule(ScheduleEdit::AddHours(hours)) => {
            ("service_hours.add", scope(&hours.scope), json!({ "id": id, "rule": hours.rule }))
        }
        Edit::Schedule(ScheduleEdit::RemoveWindow(id)) => ("maintenance.remove", id.to_string(), json!({})),
        Edit::Schedule(ScheduleEdit::RemoveHours(id)) => ("service_hours.remove", id.to_string(), json!({})),
        Edit::Account(AccountEdit::First(user)) => {
            ("user.first", user.name.clone(), json!({ "role": user.role.as_str(), "regions": reach(&user.reach) }))
        }
        Edit::Account(AccountEdit::AddUser(user)) => {
            ("user.add", user.name.clone(), json!({ "role": user.role.as_str(), "regions": reach(&user.reach) }))
        }
        Edit::Account(AccountEdit::SetUser(user)) => {
            ("user.change", user.name.clone(), json!({ "role": user.role.as_str(), "regions": reach(&user.reach) }))
        }
        Edit::Account(AccountEdit::RemoveUser(name)) => ("user.remove", name.clone(), json!({})),
        Edit::Account(AccountEdit::AddToken(token)) => (
            "token.add",
            token.name.clone(),
            json!({
                "id": id, "role": token.role.as_str(), "regions": reach(&token.reach),
                "expires": token.expires.map(|at| at.to_string()),
            }),
        ),
        Edit::Account(AccountEdit::RemoveToken(id)) => ("token.remove", id.to_string(), json!({})),
        Edit::Account(AccountEdit::Begin(session)) => ("login", session.user.clone(), json!({})),
        Edit::Account(AccountEdit::End(_)) => ("logout", String::new(), json!({})),
        Edit::Inventory(edit) => inventory::words(edit),
        Edit::AcceptIdentity { device, .. } => ("identity.accept", device.to_string(), json!({})),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Store, audit, import, load_inventory};
    use super::*;
    use crate::accounts::{ApiToken, Role, Session, User};
    use crate::inventory::parse_csv;
    use crate::store::accounts as everybody;

    const CSV: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                       a,A,m,M,r,R,atm,10.0.0.1\nb,B,m,M,r,R,atm,10.0.0.2\nc,C,m,M,r,R,atm,10.0.0.3\n";

    fn opened() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path()).expect("opens");
        let inventory = parse_csv("e", CSV).expect("good");
        store.transaction(|db| import(db, &inventory)).expect("imported");
        (folder, store)
    }

    fn make(store: &mut Store, edit: Edit) -> Result<i64, EditError> {
        store.edit(&Change { actor: "gia".into(), edit }, Millis(7))
    }

    fn ids(store: &Store) -> String {
        let (inventory, numbers) = load_inventory(store.connection()).expect("readable");
        let each = inventory.devices.iter().zip(numbers).map(|(device, no)| format!("{}={no}", device.id));
        each.collect::<Vec<_>>().join(" ")
    }

    fn remove(id: &str) -> Edit {
        Edit::Inventory(InventoryEdit::RemoveDevice(id.parse().expect("an id")))
    }

    #[test]
    fn each_change_is_written_down_and_nothing_of_the_audit_goes() {
        let (_folder, mut store) = opened();
        let user = User {
            name: "nino".into(),
            role: Role::Viewer,
            reach: Reach::All,
            password: "a hash".into(),
            created: Millis(1),
            last_login: None,
        };
        let token = ApiToken {
            id: 0,
            name: "grafana".into(),
            digest: [9; 32],
            role: Role::Viewer,
            reach: Reach::parse(Some("r")).expect("ids"),
            created_by: "gia".into(),
            created: Millis(1),
            expires: None,
        };
        make(&mut store, Edit::Account(AccountEdit::AddUser(user.clone()))).expect("made");
        let session = Session { digest: [1; 32], user: "nino".into(), expires: Millis(100) };
        make(&mut store, Edit::Account(AccountEdit::Begin(session))).expect("made");
        make(&mut store, Edit::Account(AccountEdit::AddToken(token))).expect("made");
        make(&mut store, remove("a")).expect("made");
        assert!(matches!(make(&mut store, remove("a")), Err(EditError::NotFound)));
        let rows = audit(store.connection(), None, 10).expect("readable");
        let told: Vec<String> = rows.iter().map(|row| format!("{} {} {}", row.actor, row.action, row.target)).collect();
        assert_eq!(told, ["gia device.remove a", "gia token.add grafana", "gia login nino", "gia user.add nino"]);
        assert!(rows.iter().all(|row| row.at == Millis(7) && !row.detail.contains("hash")));
        assert_eq!(audit(store.connection(), Some(rows[1].id), 1).expect("readable"), rows[2..3]);
        for sql in ["delete from audit", "update audit set actor = 'nobody'"] {
            let refused = store.connection().execute(sql, []).expect_err("it is append-only").to_string();
            assert!(refused.contains("append-only"), "{refused}");
        }
        let known = everybody(store.connection()).expect("readable");
        assert!(known.who(&[1; 32], Millis(99)).is_some() && known.who(&[9; 32], Millis(99)).is_some());
    }

    #[test]
    fn what_is_refused_half_way_is_undone() {
        let (_folder, mut store) = opened();
        let before = ids(&store);
        // The file takes c's address, which it doesn't name, after it has removed a and changed b.
        let text = format!(
            "{}b,Other,m,M,r,R,atm,10.0.0.9\nd,D,m,M,r,R,atm,10.0.0.3\n",
            CSV.lines().next().map(|l| format!("{l}\n")).expect("a header")
        );
        let inventory = parse_csv("e", &text).expect("good");
        let import = |based_on| {
            let removed = vec!["a".parse().expect("an id")];
            Edit::Inventory(InventoryEdit::Import { inventory: inventory.clone(), removed, based_on })
        };
        let refused = make(&mut store, import(2)).expect_err("it is taken").to_string();
        assert!(refused.contains("10.0.0.3 is already the address"), "{refused}");
        assert!(matches!(make(&mut store, import(1)), Err(EditError::Taken(_))), "it was compared with another inventory");
        assert_eq!(ids(&store), before);
        assert_eq!(audit(store.connection(), None, 10).expect("readable"), []);
    }

    #[test]
    fn a_removed_devices_number_is_nobody_elses() {
        let (_folder, mut store) = opened();
        assert_eq!(ids(&store), "a=1 b=2 c=3");
        make(&mut store, remove("c")).expect("made");
        let device = load_inventory(store.connection()).expect("readable").0.devices[0].clone();
        let new = |id: &str, ip: &str| {
            let (id, ip) = (id.parse().expect("an id"), ip.parse().expect("an address"));
            Edit::Inventory(InventoryEdit::AddDevice(crate::inventory::Device { id, ip, ..device.clone() }))
        };
        make(&mut store, new("d", "10.0.0.4")).expect("made");
        // The same device that comes back is a new one: nobody has watched it meanwhile.
        make(&mut store, new("c", "10.0.0.3")).expect("made");
        assert_eq!(ids(&store), "a=1 b=2 c=5 d=4");
        assert!(matches!(make(&mut store, new("e", "10.0.0.4")), Err(EditError::Taken(_))));
        let inventory = parse_csv("e", &format!("{CSV}e,E,m,M,r,R,atm,10.0.0.5\n")).expect("good");
        make(&mut store, remove("c")).expect("made");
        make(&mut store, Edit::Inventory(InventoryEdit::Import { inventory, removed: vec![], based_on: 6 })).expect("made");
        assert_eq!(ids(&store), "a=1 b=2 c=6 d=4 e=7");
    }
}
