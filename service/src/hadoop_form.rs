//! Bobbin's tokens in the form of Hadoop's delegation tokens, as WebHDFS clients send them.
//!
//! Hadoop's clients take any identifier, so it is the signed part of a token, and the password is
//! the signature: every door checks the same proof.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bobbin_hadoop::proto::common::Token;
use bobbin_hadoop::tokens::WEBHDFS_KIND;

/// A token of Bobbin's for the file tree at `service`, which is the text that a client computes for
/// the address it connects to; `None` if it is none of Bobbin's.
///
/// Source: `Token`, `SecurityUtil.buildTokenService` of Hadoop.
#[must_use]
pub fn to_hadoop_form(token: &str, service: &str) -> Option<Token> {
    let (identifier, signature) = token.rsplit_once('.')?;
    let password = URL_SAFE_NO_PAD.decode(signature).ok()?;
    Some(Token {
        identifier: identifier.as_bytes().to_vec().into(),
        password: password.into(),
        kind: WEBHDFS_KIND.to_owned(),
        service: service.to_owned(),
    })
}

/// The token of Bobbin's that a token for WebHDFS stands for, unproven; `None` if it cannot be one.
#[must_use]
pub fn from_hadoop_form(token: &Token) -> Option<String> {
    if token.kind != WEBHDFS_KIND {
        return None;
    }
    let identifier = std::str::from_utf8(&token.identifier).ok()?;
    crate::token::is_ours(identifier)
        .then(|| format!("{identifier}.{}", URL_SAFE_NO_PAD.encode(&token.password)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Claims, SecretKey, TokenKind};
    use bobbin_types::WallMillis;

    #[test]
    fn there_and_back() {
        let claims = Claims::new(TokenKind::User, WallMillis(7));
        let token = SecretKey::from_bytes(&[7; 32]).unwrap().mint(&claims);
        let form = to_hadoop_form(&token, "127.0.0.1:8088").unwrap();
        assert_eq!(form.service, "127.0.0.1:8088");
        assert_eq!(from_hadoop_form(&form), Some(token));
        assert_eq!(to_hadoop_form("no token", ""), None);
        assert_eq!(to_hadoop_form("bobbin1.x.!", ""), None);
        // Another cluster's, for a tree that is Hadoop's own.
        let mut other = form.clone();
        other.kind = "HDFS_DELEGATION_TOKEN".to_owned();
        assert_eq!(from_hadoop_form(&other), None);
        let mut other = form;
        other.identifier = vec![0, 5, b'a'].into();
        assert_eq!(from_hadoop_form(&other), None);
    }
}
