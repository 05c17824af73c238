//! Who may write.

use std::{collections::BTreeMap, io, path::PathBuf};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq;

use super::settings::UserSettings;
use crate::writer::read_password_file;

/// Users and their passwords; with none everybody may write.
#[derive(Default)]
pub struct Users(BTreeMap<String, String>);

/// A password that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the password of user {name:?}, {}, cannot be read", path.display())]
#[non_exhaustive]
pub struct NoPassword {
    /// The user.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Why somebody may not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is no password that can be read.
    Nobody,
    /// It is not that of the user.
    Wrong,
}

impl Users {
    pub fn new(settings: &[UserSettings]) -> Result<Users, NoPassword> {
        let mut users = BTreeMap::new();
        for user in settings {
            let password = match (&user.password, &user.password_file) {
                (Some(password), _) => password.as_str().to_owned(),
                (None, Some(path)) => read_password_file(path).map_err(|source| NoPassword {
                    name: user.name.clone(),
                    path: path.clone(),
                    source,
                })?,
                // The settings were checked.
                (None, None) => continue,
            };
            users.insert(user.name.clone(), password);
        }
        Ok(Users(users))
    }

    /// Whether a request may write: by `u` and `p`, or by its `Authorization`. Where it has both,
    /// the former count, as for influxd.
    pub fn check(&self, headers: &HeaderMap, user: &str, password: &str) -> Result<(), Denied> {
        if self.0.is_empty() {
            return Ok(());
        }
        let given = match headers.get(header::AUTHORIZATION) {
            _ if !user.is_empty() && !password.is_empty() => (user.to_owned(), password.to_owned()),
            Some(given) => credentials(given).ok_or(Denied::Nobody)?,
            None => return Err(Denied::Nobody),
        };
        let (user, password) = given;
        // The time says nothing of how much of a password is right, nor whether there is the user.
        let known = self.0.get(&user);
        let wanted = known.map_or("", String::as_str).as_bytes();
        match bool::from(password.as_bytes().ct_eq(wanted)) && known.is_some() {
            true => Ok(()),
            false => Err(Denied::Wrong),
        }
    }
}

/// Name and password of `Basic ..` or of `Token name:password`.
fn credentials(given: &HeaderValue) -> Option<(String, String)> {
    let (scheme, rest) = given.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    let pair = if scheme.eq_ignore_ascii_case("basic") {
        String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?
    } else if scheme.eq_ignore_ascii_case("token") {
        rest.to_owned()
    } else {
        return None;
    };
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let pair = |(name, password): (&str, &str)| (name.to_owned(), password.to_owned());
        Users([("ann", "s:1"), ("bob", "x")].map(pair).into())
    }

    fn by(authorization: &str) -> Result<(), Denied> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        users().check(&headers, "", "")
    }

    #[test]
    fn a_user_is_known_by_basic_by_a_token_and_by_u_and_p() {
        let basic = |pair: &str| by(&format!("Basic {}", BASE64_STANDARD.encode(pair)));
        assert_eq!(basic("ann:s:1"), Ok(()));
        assert_eq!(by("Token ann:s:1"), Ok(()));
        assert_eq!(by("token bob:x"), Ok(()));
        assert_eq!(users().check(&HeaderMap::new(), "bob", "x"), Ok(()));
        for wrong in ["ann:s:2", "ann:s:11", "ann:", "eve:", "eve:x", ":x"] {
            assert_eq!(basic(wrong), Err(Denied::Wrong), "{wrong}");
        }
        let none = HeaderMap::new();
        assert_eq!(users().check(&none, "bob", ""), Err(Denied::Nobody));
        for nobody in ["Basic %%", "Bearer x", "Token x", "x"] {
            assert_eq!(by(nobody), Err(Denied::Nobody), "{nobody}");
        }
        assert_eq!(
            users().check(&HeaderMap::new(), "", "x"),
            Err(Denied::Nobody)
        );
    }

    #[test]
    fn without_users_everybody_may_write() {
        assert_eq!(Users::default().check(&HeaderMap::new(), "", ""), Ok(()));
    }
}
