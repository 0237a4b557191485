//! What a node says of its TLS, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, CertificateError, Error};

use super::config::TlsMode;
use super::loaded::Loaded;

/// A certificate that has less left is spoken of.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);
/// How often it is spoken of in the log.
const REPEAT: Duration = Duration::from_secs(86_400);

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long, or was ended in favour of another one.
    Timeout,
    /// Whoever connected spoke no TLS.
    NotTls,
    /// A certificate is required, and none was shown.
    NoCertificate,
    /// The certificate that was shown is of no CA that is trusted.
    UnknownCa,
    /// It has expired.
    Expired,
    /// It is not acceptable for another reason.
    BadCertificate,
    /// Whoever connected did not like this node's certificate.
    RefusedByClient,
    /// Whoever connected went away.
    Gone,
    /// Something else.
    Other,
}

impl HandshakeFailure {
    /// All of them, with their names in the metrics.
    pub const ALL: [(HandshakeFailure, &str); 9] = [
        (HandshakeFailure::Timeout, "timeout"),
        (HandshakeFailure::NotTls, "not_tls"),
        (HandshakeFailure::NoCertificate, "no_certificate"),
        (HandshakeFailure::UnknownCa, "unknown_ca"),
        (HandshakeFailure::Expired, "expired"),
        (HandshakeFailure::BadCertificate, "bad_certificate"),
        (HandshakeFailure::RefusedByClient, "refused_by_client"),
        (HandshakeFailure::Gone, "gone"),
        (HandshakeFailure::Other, "other"),
    ];

    /// What a failed handshake is.
    pub fn of(error: &std::io::Error) -> HandshakeFailure {
        let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return HandshakeFailure::Gone;
        };
        match cause {
            Error::NoCertificatesPresented => HandshakeFailure::NoCertificate,
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                HandshakeFailure::UnknownCa
            }
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => HandshakeFailure::Expired,
            Error::InvalidCertificate(_) => HandshakeFailure::BadCertificate,
            Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate,
            ) => HandshakeFailure::RefusedByClient,
            Error::InvalidMessage(_) => HandshakeFailure::NotTls,
            _ => HandshakeFailure::Other,
        }
    }
}

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsReport {
    /// Who has to prove who it is.
    pub mode: TlsMode,
    /// Whom the certificate belongs to.
    pub subject: String,
    /// Until when it is valid, in milliseconds of Unix time.
    pub not_after_ms: u64,
    /// SHA-256 of it.
    pub fingerprint: [u8; 32],
    /// What a person should look at, if anything.
    pub alarm: Option<String>,
    /// When new files were taken last, in milliseconds of Unix time.
    pub reloaded_ms: Option<u64>,
    /// How often new files were taken.
    pub reloads: u64,
    /// How often new files could not be used.
    pub reload_failures: u64,
    /// Handshakes with those that connected.
    pub handshakes: u64,
    /// Those that failed, in the order of [`HandshakeFailure::ALL`].
    pub failures: [u64; HandshakeFailure::ALL.len()],
}

#[derive(Default)]
pub(super) struct Board {
    handshakes: AtomicU64,
    failures: [AtomicU64; HandshakeFailure::ALL.len()],
    reloads: Mutex<Reloads>,
}

#[derive(Default)]
struct Reloads {
    done: u64,
    failed: u64,
    last: Option<SystemTime>,
    /// Why the newest files cannot be used.
    broken: Option<String>,
    warned: Option<SystemTime>,
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What there is to say about how long a certificate is valid; nothing while that is long.
fn expiry(loaded: &Loaded, now: SystemTime) -> Option<String> {
    let now_s = i64::try_from(millis(now) / 1_000).unwrap_or(i64::MAX);
    let left_s = loaded.facts.not_after.saturating_sub(now_s);
    if left_s < 0 {
        return Some(
            "this node's certificate has expired: nobody can connect to it, nor it to others"
                .into(),
        );
    }
    let days = left_s / 86_400;
    let is_soon = left_s < i64::try_from(EXPIRES_SOON.as_secs()).unwrap_or(i64::MAX);
    is_soon.then(|| format!("this node's certificate expires in {days} days: renew it"))
}

impl Board {
    pub(super) fn note_handshake(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_failure(&self, failure: HandshakeFailure) {
        let place = HandshakeFailure::ALL.iter().position(|(known, _)| *known == failure);
        if let Some(counter) = place.and_then(|place| self.failures.get(place)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn note_reload(&self, broken: Option<String>) {
        let mut reloads = self.reloads();
        match &broken {
            None => {
                reloads.done += 1;
                reloads.last = Some(SystemTime::now());
            }
            Some(_) => reloads.failed += 1,
        }
        reloads.broken = broken;
    }

    pub(super) fn warn_of_expiry(&self, loaded: &Loaded, now: SystemTime) {
        let Some(words) = expiry(loaded, now) else { return };
        let mut reloads = self.reloads();
        let is_due = |at: SystemTime| now.duration_since(at).is_ok_and(|since| since >= REPEAT);
        if reloads.warned.is_none_or(is_due) {
            reloads.warned = Some(now);
            tracing::warn!("{words}");
        }
    }

    pub(super) fn report(&self, loaded: &Loaded, mode: TlsMode, now: SystemTime) -> TlsReport {
        let reloads = self.reloads();
        let broken = reloads.broken.as_ref().map(|why| {
            format!("the newest files for TLS cannot be used, and older ones are in use: {why}")
        });
        TlsReport {
            mode,
            subject: loaded.facts.subject.map(|it| it.to_string()).unwrap_or_default(),
            not_after_ms: u64::try_from(loaded.facts.not_after).unwrap_or(0).saturating_mul(1_000),
            fingerprint: loaded.facts.fingerprint,
            alarm: broken.or_else(|| expiry(loaded, now)),
            reloaded_ms: reloads.last.map(millis),
            reloads: reloads.done,
            reload_failures: reloads.failed,
            handshakes: self.handshakes.load(Ordering::Relaxed),
            failures: std::array::from_fn(|at| self.failures[at].load(Ordering::Relaxed)),
        }
    }

    fn reloads(&self) -> MutexGuard<'_, Reloads> {
        // Nothing that can panic half way runs under this lock.
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
