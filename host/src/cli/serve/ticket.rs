//! The join token of a node that has no certificate: from a file, standard input or the environment.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::api::JoinTicket;
use crate::config::ConfigError;
use crate::tls::TlsConfig;

/// The token itself, for those that have no file for it.
pub(in crate::cli) const JOIN_TOKEN_VARIABLE: &str = "RAFT_HOST_JOIN_TOKEN";
/// Longest text that is read: a token is shorter.
const MAX_BYTES: u64 = 4_096;

fn text_of(mut source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.by_ref().take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads it. `None`: there is none, or the node has its certificate already and needs none any more.
///
/// # Errors
/// It cannot be read, or is no join token.
pub(super) fn read(
    file: Option<&Path>,
    tls: &TlsConfig,
) -> Result<Option<JoinTicket>, ConfigError> {
    if tls.certificate.as_deref().is_some_and(Path::exists) {
        return Ok(None);
    }
    let (text, place) = match file {
        Some(path) => {
            let (read, place) = match path.as_os_str() == "-" {
                true => (text_of(io::stdin().lock()), "standard input".to_owned()),
                false => (File::open(path).and_then(text_of), path.display().to_string()),
            };
            let unreadable = |error| format!("the join token in {place} cannot be read: {error}");
            (read.map_err(|error| invalid(unreadable(error)))?, place)
        }
        None => match std::env::var(JOIN_TOKEN_VARIABLE) {
            Ok(text) if !text.trim().is_empty() => (text, JOIN_TOKEN_VARIABLE.to_owned()),
            _ => return Ok(None),
        },
    };
    let ticket = JoinTicket::read(text.trim()).ok_or_else(|| {
        invalid(format!(
            "{place} holds no join token: `raft-host token join` makes one, \"rhj1.\" and 86 characters"
        ))
    })?;
    Ok(Some(ticket))
}

fn invalid(problem: String) -> ConfigError {
    ConfigError::Invalid(vec![problem])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_until_there_is_a_certificate_and_never_repeated() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("token");
        let mut tls = TlsConfig::default();
        tls.use_folder(dir.path());
        let refused = |file: &Path| read(Some(file), &tls).expect_err("no token").to_string();
        assert!(refused(&file).contains("cannot be read"));
        std::fs::write(&file, "rhj1.secret").expect("written");
        let words = refused(&file);
        assert!(words.contains("holds no join token") && !words.contains("secret"), "{words}");
        std::fs::write(&file, format!(" rhj1.{}\n", "A".repeat(86))).expect("written");
        assert!(read(Some(&file), &tls).expect("a token").is_some());
        std::fs::write(dir.path().join("certificate.pem"), "").expect("written");
        assert!(read(Some(&dir.path().join("gone")), &tls).expect("not looked at").is_none());
    }
}
