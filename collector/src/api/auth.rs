//! Who may ask: one token, in a header or in the cookie that the login sets. One layer, denied by default.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use rand::distr::{Alphanumeric, SampleString};

use super::Api;
use super::problem::Problem;

/// The cookie that the login sets.
pub const COOKIE: &str = "ward_token";
/// Fewest characters of a token that somebody chose.
const TOKEN_MIN: usize = 8;

/// What callers must show.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token that nobody can guess.
    pub fn random() -> Self {
        Self(Alphanumeric.sample_string(&mut rand::rng(), 32))
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
        let differs = self.0.bytes().zip(text.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        differs == 0 && self.0.len() == text.len()
    }
}

fn shown(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) {
        return Some(token.trim());
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Lets a request through that shows the token. A browser that asks for the page is sent to the login.
pub async fn require_token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if shown(request.headers()).is_some_and(|token| api.token.is(token)) {
        return next.run(request).await;
    }
    // What a browser opens is a page; what the page asks for is not.
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if request.uri().path() == "/" || accepted.contains("text/html") {
        return Redirect::to("/login").into_response();
    }
    Problem::unauthorized().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_from_the_header_or_the_cookie() {
        let headers = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            headers
        };
        assert_eq!(shown(&headers(header::AUTHORIZATION, "Bearer abc")), Some("abc"));
        assert_eq!(shown(&headers(header::AUTHORIZATION, "Basic abc")), None);
        assert_eq!(shown(&headers(header::COOKIE, "a=b; ward_token=abc; c=d")), Some("abc"));
        assert_eq!(shown(&HeaderMap::new()), None);
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
