//! Who asks, and whether they may: one layer before every route, denied by default.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use super::Api;
use super::access::{self, Rule};
use super::problem::Problem;
use crate::accounts::Who;
use crate::{clock, secrets};

/// The cookie of a session.
pub const SESSION_COOKIE: &str = "ward_session";
/// The cookie that holds a token, for those who came by a link with one.
pub const TOKEN_COOKIE: &str = "ward_token";
/// What stands before a cookie's name where the collector itself speaks TLS: a browser then takes the cookie from this host
/// alone, and never in the clear.
const HOST_PREFIX: &str = "__Host-";
/// The header by which a page shows that it is ours.
pub const CSRF_HEADER: &str = "x-csrf-token";
/// Fewest characters of a token that somebody chose.
const TOKEN_MIN: usize = 8;

/// What callers must show.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token that nobody can guess.
    pub fn random() -> Self {
        Self(secrets::random())
    }

    /// A token that somebody chose.
    ///
    /// # Errors
    /// When it is too short, or can't stand in a header and a cookie.
    pub fn chosen(text: &str) -> anyhow::Result<Self> {
        let fits = text.len() >= TOKEN_MIN && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c));
        anyhow::ensure!(fits, "a token has at least {TOKEN_MIN} characters of a-z, A-Z, 0-9, '-', '.', '_' and '~'");
        Ok(Self(text.to_owned()))
    }

    /// The token in a file; a new one is made, readable by its owner only, if the file is missing.
    ///
    /// # Errors
    /// When the file can't be read or made, or holds no token.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::chosen(text.trim()).with_context(|| format!("the token in {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let token = Self::random();
                let options = std::fs::OpenOptions::new().write(true).create_new(true).clone();
                let file = std::os::unix::fs::OpenOptionsExt::mode(&mut options.clone(), 0o600).open(path);
                let mut file = file.with_context(|| format!("making the token file {}", path.display()))?;
                std::io::Write::write_all(&mut file, format!("{}\n", token.0).as_bytes())
                    .with_context(|| format!("writing the token file {}", path.display()))?;
                tracing::info!(file = %path.display(), "made a token for the API");
                Ok(token)
            }
            Err(error) => Err(error).with_context(|| format!("reading the token file {}", path.display())),
        }
    }

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is the token, in a time that doesn't tell how much of it is right.
    pub fn is(&self, text: &str) -> bool {
        secrets::same(&self.0, text)
    }
}

/// Who asks. Each route behind the layer may take it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who they are.
    pub who: Who,
    /// They have shown it by a cookie, which a browser sends for whatever site asks it to.
    pub by_cookie: bool,
}

impl Caller {
    /// What their page shows beside the cookie.
    pub fn csrf(&self) -> Option<String> {
        self.by_cookie.then(|| secrets::csrf(&self.who.digest))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // The layer has put it there; a route that stands before the layer by mistake lets nobody in.
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(Ipv4Addr::UNSPECIFIED.into())))
    }
}

/// What stands before the names of cookies.
pub(super) fn cookie_prefix(is_tls: bool) -> &'static str {
    if is_tls { HOST_PREFIX } else { "" }
}

/// A cookie's value.
fn cookie<'a>(headers: &'a HeaderMap, prefix: &str, wanted: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| name.strip_prefix(prefix) == Some(wanted)).map(|(_, value)| value)
}

/// The secrets that a request shows, and whether by a cookie. A header stands for itself alone.
fn shown(headers: &HeaderMap, is_tls: bool) -> Vec<(&str, bool)> {
    if let Some(given) = headers.get(header::AUTHORIZATION) {
        let token = given.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        return token.map(|token| (token.trim(), false)).into_iter().collect();
    }
    let prefix = cookie_prefix(is_tls);
    [SESSION_COOKIE, TOKEN_COOKIE].into_iter().filter_map(|name| Some((cookie(headers, prefix, name)?, true))).collect()
}

/// Who asks, if that is anybody.
fn caller(api: &Api, headers: &HeaderMap) -> Option<Caller> {
    let now = clock::now();
    shown(headers, api.is_tls)
        .into_iter()
        .find_map(|(secret, by_cookie)| Some(Caller { who: api.gate.who(secret, now)?, by_cookie }))
}

/// Lets a request through that its caller may make. A browser that asks for the page without being known is sent to the
/// login.
pub(super) async fn admit(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let Some(caller) = caller(&api, request.headers()) else {
        // What a browser opens is a page; what the page asks for is not.
        let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if request.uri().path() == "/" || accepted.contains("text/html") {
            return Redirect::to("/login").into_response();
        }
        return Problem::unauthorized().into_response();
    };
    // A path that nobody knows is for the router to deny.
    if let Some(path) = request.extensions().get::<MatchedPath>().cloned() {
        match access::rule(request.method(), path.as_str()) {
            Rule::Least(role) if caller.who.role >= role => {}
            Rule::Least(role) => return Problem::forbidden(format!("this takes the role {}", role.as_str())).into_response(),
            Rule::OtherMethods(methods) => {
                let mut response = Problem::method_not_allowed().into_response();
                if let Ok(methods) = HeaderValue::from_str(&methods) {
                    response.headers_mut().insert(header::ALLOW, methods);
                }
                return response;
            }
            Rule::Nothing => return Problem::not_found("there is no such path").into_response(),
        }
        let shown = request.headers().get(CSRF_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if access::changes(request.method(), path.as_str()) && caller.csrf().is_some_and(|wanted| !secrets::same(&wanted, shown))
        {
            let why = format!("a change by a cookie shows the header {CSRF_HEADER}, with csrf of /api/v1/me");
            return Problem::forbidden(why).into_response();
        }
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_from_the_header_or_the_cookies() {
        let headers = |pairs: &[(header::HeaderName, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header"))).collect()
        };
        let check = |pairs: &[(header::HeaderName, &str)], expected: &[(&str, bool)]| {
            assert_eq!(shown(&headers(pairs), false), expected, "{pairs:?}");
        };
        // By TLS only those count that no other host, and nothing in the clear, can have set.
        let both = headers(&[(header::COOKIE, "ward_session=abc; __Host-ward_session=def")]);
        assert_eq!((shown(&both, true), shown(&both, false)), (vec![("def", true)], vec![("abc", true)]));
        check(&[(header::AUTHORIZATION, "Bearer abc")], &[("abc", false)]);
        check(&[(header::AUTHORIZATION, "Basic abc")], &[]);
        check(&[(header::COOKIE, "a=b; ward_token=abc; c=d")], &[("abc", true)]);
        check(&[(header::COOKIE, "ward_token=abc; ward_session=def")], &[("def", true), ("abc", true)]);
        // A page of another site can make a browser send cookies, but no header of its own beside them.
        check(&[(header::COOKIE, "ward_token=abc"), (header::AUTHORIZATION, "Bearer def")], &[("def", false)]);
        check(&[], &[]);
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token::chosen("abcdefgh").expect("long enough");
        assert!(token.is("abcdefgh"));
        for wrong in ["", "abcdefg", "abcdefghi", "abcdefgx"] {
            assert!(!token.is(wrong), "{wrong}");
        }
        assert!(Token::chosen("short").is_err());
        assert!(Token::chosen("with space in it").is_err());
    }

    #[test]
    fn a_token_file_is_made_once_and_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api-token");
        let first = Token::from_file(&path).expect("made");
        assert!(Token::from_file(&path).expect("read").is(first.as_str()));
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "\n").expect("written");
        assert!(Token::from_file(&path).is_err());
    }
}
