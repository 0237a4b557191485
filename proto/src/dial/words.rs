//! What went wrong between two that speak TLS, or of which only one does, in words.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Whether the first bytes of an answer are TLS's: an alert, or a handshake. No HTTP/2 connection begins so.
pub(super) fn is_of_tls(received: &[u8]) -> bool {
    matches!(received, [0x15 | 0x16, 0x03, ..] | [0x15])
}

pub(super) const SPEAKS_TLS: &str = "the node speaks TLS, and this client does not: give the cluster's CA (--tls-ca \
                                     FILE, or --tls DIR)";

/// The end of a connection with a reason, as a node would say it in HTTP/2 that could. A connection that just fails
/// is a request that was cancelled, to who made it, without a reason.
pub(super) fn goodbye(reason: &str) -> Vec<u8> {
    /// SETTINGS, empty; and GOAWAY, whose length goes in front.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 6] = [7, 0, 0, 0, 0, 0];
    /// No stream was looked at; INADEQUATE_SECURITY.
    const CAUSE: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 12];
    const MAX_BYTES: usize = 1_000;
    let reason = &reason.as_bytes()[..reason.len().min(MAX_BYTES)];
    let length = u16::try_from(CAUSE.len() + reason.len()).expect("it was cut");
    [&SETTINGS[..], &[0], &length.to_be_bytes(), &GOAWAY, &CAUSE, reason].concat()
}

/// Why there is no connection.
pub(super) fn of_handshake(error: io::Error, host: &str) -> io::Error {
    if let Some(cause) = cause(&error) {
        let said = match cause {
            Error::InvalidMessage(_) => {
                "the node speaks no TLS: leave --tls-ca, --tls and https:// away, or start the node with TLS"
                    .to_owned()
            }
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "the node's certificate is not for {host}: dial it by a name that the certificate has, or \
                 issue one with this name"
            ),
            cause => of(cause),
        };
        return io::Error::new(error.kind(), said);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            let said = "the node ended the connection before TLS was agreed on: does it speak TLS, and does it \
                        have room for connections?";
            io::Error::new(error.kind(), said)
        }
        _ => error,
    }
}

/// Why a connection ended, if that was for a reason of TLS. In TLS 1.3 a node refuses a client's certificate only
/// after the client is done.
pub(super) fn of_connection(error: &io::Error) -> Option<String> {
    cause(error).map(of)
}

fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn of(error: &Error) -> String {
    let said = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the node's certificate is not of a CA that this client trusts"
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the node's certificate has expired",
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the node's certificate is not valid yet: is the clock of this machine right?",
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the node's certificate is not of a CA that this client trusts: one of that name signed it, with \
             another key"
        }
        Error::InvalidCertificate(_) => {
            return format!("the node's certificate is refused: {error}");
        }
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "the node lets nobody in without a client certificate: give --tls-certificate and --tls-key, or \
                 --tls DIR"
            }
            AlertDescription::UnknownCA => {
                "the node does not trust the CA of this client's certificate"
            }
            AlertDescription::CertificateExpired => {
                "this client's certificate has expired, says the node"
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => "the node refuses this client's certificate",
            AlertDescription::ProtocolVersion => {
                "the node speaks no version of TLS that this client does"
            }
            AlertDescription::NoApplicationProtocol => {
                "what listens there speaks TLS, but no HTTP/2: is it the port for metrics?"
            }
            _ => return format!("TLS was not agreed on: {error}"),
        },
        _ => return format!("TLS was not agreed on: {error}"),
    };
    said.to_owned()
}
