//! Reads the config again.

use axum::Json;
use weir_api::admin::{self, Nothing};

use super::endpoint::Call;
use crate::error::{ApiError, Reason};
use crate::reload::Reloaded;

pub(crate) async fn reload(call: Call<Nothing, Nothing>) -> Result<Json<admin::Reload>, ApiError> {
    let Some(reload) = call.reload else {
        let message = "this server was started without a config";
        return Err(ApiError::new(Reason::NotImplemented, message));
    };
    tracing::info!(actor = %call.by.actor, "a reload of the config was asked for");
    match reload.ask().await {
        Some(Ok(Reloaded {
            changed,
            restart,
            warnings,
        })) => Ok(Json(admin::Reload {
            changed,
            restart,
            warnings,
        })),
        Some(Err(problems)) => Err(ApiError::new(Reason::ConfigInvalid, problems.join("\n"))),
        None => {
            let message = "the server stops, and doesn't read its config any more";
            Err(ApiError::new(Reason::Draining, message))
        }
    }
}
