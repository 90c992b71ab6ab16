//! Only requests to this machine by a name that no web site can have.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets a request through if its `Host` is an IP address or `localhost`, with any port; refuses all others. A layer
/// for [`axum::middleware::from_fn`].
pub(crate) async fn only_local_names(request: Request, next: Next) -> Response {
    let mut named = request.headers().get_all(HOST).iter();
    // Exactly one, as RFC 9112, section 3.2 asks for; and the target's own authority, if it has one, is a name too.
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        _ => "",
    };
    let target = request.uri().authority().is_none_or(is_local);
    if target && host.parse().is_ok_and(|authority| is_local(&authority)) {
        return next.run(request).await;
    }
    let why =
        "this is answered only under an IP address or as localhost: the Host header names something else\n";
    (StatusCode::FORBIDDEN, why).into_response()
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // A name and perhaps a port; no user name before an @.
    !authority.as_str().contains('@')
        && (authority.as_str() == host || authority.port_u16().is_some())
        && (host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_answered_and_no_other_names() {
        let answered = |host: &str| host.parse().is_ok_and(|authority| is_local(&authority));
        for host in
            ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:80", "[::1]:8080", "192.168.1.7:1"]
        {
            assert!(answered(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.nip.io",
            "a@127.0.0.1",
            "127.0.0.1@evil.example",
            "",
            "localhost:x",
            "127.0.0.1, evil.example",
        ] {
            assert!(!answered(host), "{host}");
        }
    }
}
