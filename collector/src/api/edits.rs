//! Changes on their way to the ledger's thread, which alone writes the file.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::Api;
use super::auth::Caller;
use super::problem::Problem;
use crate::inbox;
use crate::ingest::Command;
use crate::store::{Change, Edit, EditError};

/// When a collector that ends is to be asked again, in seconds: it may be started anew.
const ENDING_S: i64 = 10;

/// A change, and where to say whether it is made.
pub type Request = (Change, oneshot::Sender<Result<i64, EditError>>);

/// Hands changes over to the ledger's thread. A task of its own: the API must not keep that thread from ending.
pub async fn hand_over(mut requests: mpsc::Receiver<Request>, commands: inbox::Sender) {
    while let Some((change, answer)) = requests.recv().await {
        if commands.send(Command::Edit(change, answer)).await.is_err() {
            return;
        }
    }
}

/// What somebody is answered who has added something, and where it is.
pub(super) fn created(place: String, body: Value) -> Response {
    (StatusCode::CREATED, [(header::LOCATION, place)], Json(body)).into_response()
}

/// Makes a change in the name of who asks for it; the number of what was added or taken away.
pub(super) async fn edit(api: &Api, caller: &Caller, edit: Edit) -> Result<i64, Problem> {
    edit_as(api, &caller.who.name, edit).await
}

/// The same in the name of somebody who has yet to come in.
pub(super) async fn edit_as(api: &Api, actor: &str, edit: Edit) -> Result<i64, Problem> {
    let (answer, done) = oneshot::channel();
    let gone = || Problem::busy("the collector is ending", ENDING_S);
    let is_account = matches!(edit, Edit::Account(_));
    let change = Change { actor: actor.to_owned(), edit };
    api.edits.send((change, answer)).await.map_err(|_| gone())?;
    match done.await.map_err(|_| gone())? {
        Ok(id) => {
            api.answers.are_outdated();
            if is_account {
                api.gate.reload(&api.readers).await?;
            }
            Ok(id)
        }
        Err(EditError::NotFound) => Err(Problem::not_found("there is nothing of that name")),
        Err(refused @ (EditError::Full | EditError::Taken(_))) => Err(Problem::conflict(refused.to_string())),
        Err(EditError::Store(error)) => Err(Problem::internal(error)),
    }
}
