//! Bodies of requests: JSON, not too large, in time.

use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};

/// A body must come within this time.
const BODY_TIME: Duration = Duration::from_secs(20);

/// A body that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// A request's body, if it is called JSON and has at most `most` bytes.
///
/// # Errors
/// It is not, it has more, or it does not come in time.
pub(crate) async fn read_json(request: Request, most: usize) -> Result<Bytes, Refused> {
    let refused = |status, message: &str| Refused { status, message: message.to_owned() };
    let (head, body) = request.into_parts();
    // Not only for order's sake: a page of a web site can make a browser send other types without asking.
    if !is_json(&head.headers) {
        let message = "the body must be JSON: Content-Type: application/json";
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let too_large =
        || refused(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body has more than {most} bytes"));
    let claimed =
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if claimed.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // It claimed none, and has more; or the connection is gone, and nobody reads this.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
