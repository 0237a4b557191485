//! The engine profile: everything about what runs the guest that decides outcomes, as one value.
//!
//! Budgets are numbers that any version can honour; what is here is built into a program: the
//! instructions that it takes, what each costs, how it rewrites a module, the CPU that its code
//! is for. So the profile is replicated state as the budgets are, but a node cannot follow every
//! change of it: one whose program offers another profile stops.
//!
//! ```text
//!   v1/wasmtime-48/abi-1/fuel-1/rewrite-1/check-1/machine-1/x86-64:sse3/features:simd/crc-0a1b2c3d
//!   │  └─ name and version of the engine                     │                         └─ CRC-32 of
//!   └─ version of this text                                  └─ CPU and what is          what is before
//!                                                               assumed of it
//! ```
//!
//! The text is canonical: equal profiles have equal texts. It needs no quotes in a shell. What
//! is a profile at all is decided by [`EngineProfile::parse`] on every node that applies a change
//! of it, whatever the node's version. So that rule is for ever: a text of a later version
//! passes when its frame and checksum are right, even though nobody here knows what it says.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Context, Fsm, FsmLoader, HostFailure, Limits, ModuleRefused, SharedLoader};
use crate::types::{Level, ModuleHash, StateDigest};

/// Version of the machine's constants and rules that decide outcomes; `machine` tests which those are.
pub const MACHINE_VERSION: u32 = 1;

/// Longest text.
const TEXT_MAX_BYTES: usize = 1024;
/// Before the checksum.
const CHECKSUM_MARK: &str = "/crc-";

/// See the module. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineProfile {
    text: Arc<str>,
}

/// What a profile of version 1 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// What runs the guest, such as `wasmtime`.
    pub engine: String,
    /// Its major version: code that another one makes may use its stack otherwise.
    pub engine_version: u32,
    /// Version of the guest ABI, with what the host's functions and WASI do.
    pub abi: u32,
    /// Version of the fuel schedule: what each instruction and each call of the host costs.
    pub fuel: u32,
    /// Version of how a module is rewritten before it is compiled.
    pub rewrite: u32,
    /// Version of the bounds that a module of the log must keep to be activated.
    pub check: u32,
    /// Version of the constants and rules of the machine that decide outcomes, but for the limits,
    /// which are numbers in the state.
    pub machine: u32,
    /// Architecture that the code is for.
    pub cpu: String,
    /// What the code assumes of the CPU beyond its architecture; in any order.
    pub cpu_features: Vec<String>,
    /// WebAssembly features that a module may use; in any order.
    pub features: Vec<String>,
}

/// Why a text is no profile. The same on every node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Nothing is there.
    #[error("it is empty")]
    Empty,
    /// Too long to be one.
    #[error("it has {0} bytes, at most {TEXT_MAX_BYTES} are allowed")]
    TooLong(usize),
    /// It does not begin and end as a profile does.
    #[error("it is no engine profile: one begins with `v1/` and ends with `/crc-` and 8 digits")]
    Frame,
    /// It has been changed since a program printed it.
    #[error("its checksum is wrong: copy it whole, as `raft-host engine offered` printed it")]
    Checksum,
    /// Its checksum is right, and yet no version 1 program prints that.
    #[error("it is not in the canonical form of its version")]
    NotCanonical,
}

/// The loader's program cannot run guests under a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine profile is {wanted}, and this program offers {offered}")]
pub struct EngineUnsupported {
    /// The state's.
    pub wanted: EngineProfile,
    /// The program's.
    pub offered: EngineProfile,
}

impl EngineProfile {
    /// The profile of a program.
    ///
    /// # Panics
    ///
    /// If a name has other characters than `a` to `z`, digits, `.`, `_` and `-`: they are the
    /// program's own words.
    pub fn of(facts: &EngineFacts) -> EngineProfile {
        let list = |names: &[String]| {
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            names.sort_unstable();
            names.dedup();
            assert!(names.iter().all(|name| is_name(name)), "{names:?}");
            names.join(",")
        };
        let EngineFacts { engine, engine_version, abi, fuel, rewrite, check, machine, cpu, .. } =
            facts;
        assert!(is_name(engine) && is_name(cpu), "{engine:?}, {cpu:?}");
        let body = format!(
            "v1/{engine}-{engine_version}/abi-{abi}/fuel-{fuel}/rewrite-{rewrite}/check-{check}\
             /machine-{machine}/{cpu}:{}/features:{}",
            list(&facts.cpu_features),
            list(&facts.features),
        );
        let text = with_checksum(&body);
        assert!(text.len() <= TEXT_MAX_BYTES, "{text}");
        EngineProfile { text: text.into() }
    }

    /// Takes exactly what [`EngineProfile::of`] makes, and what later versions of the text may
    /// look like. Never changes: see the module.
    ///
    /// # Errors
    ///
    /// See [`ProfileError`].
    pub fn parse(text: &str) -> Result<EngineProfile, ProfileError> {
        if text.is_empty() {
            return Err(ProfileError::Empty);
        }
        if text.len() > TEXT_MAX_BYTES {
            return Err(ProfileError::TooLong(text.len()));
        }
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        let version = text.strip_prefix('v').and_then(|rest| rest.split_once('/'));
        let version = version.and_then(|(version, _)| number(version)).filter(|_| printable);
        let body = text.rsplit_once(CHECKSUM_MARK).map(|(body, _)| body);
        let (Some(version), Some(body)) = (version, body) else {
            return Err(ProfileError::Frame);
        };
        if text.len() != body.len() + CHECKSUM_MARK.len() + 8 {
            return Err(ProfileError::Frame);
        }
        if with_checksum(body) != text {
            return Err(ProfileError::Checksum);
        }
        if version == 1
            && facts_of(body).is_none_or(|facts| *EngineProfile::of(&facts).text != *text)
        {
            return Err(ProfileError::NotCanonical);
        }
        Ok(EngineProfile { text: text.into() })
    }

    /// What it says; `None` for a later version's.
    pub fn facts(&self) -> Option<EngineFacts> {
        facts_of(self.text.rsplit_once(CHECKSUM_MARK)?.0)
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Names all that decides how guests run: the SHA-256 of the text and of a line
    /// `name=value` for each budget, each after a line break.
    pub fn hash(&self, limits: &Limits) -> StateDigest {
        let mut hasher = Sha256::new();
        hasher.update(self.text.as_bytes());
        for (name, value) in limits.by_name() {
            hasher.update(format!("\n{name}={value}"));
        }
        StateDigest(hasher.finalize().into())
    }

    /// The first profile that a cluster could have, on each architecture.
    pub fn first() -> EngineProfile {
        let text = match cfg!(target_arch = "x86_64") {
            true => {
                "v1/wasmtime-48/abi-1/fuel-1/rewrite-1/check-1/machine-1\
                 /x86-64:popcnt,sse3,sse4.1,sse4.2,ssse3\
                 /features:bulk-memory,extended-const,floats,multi-value,mutable-global,\
                 reference-types,saturating-float-to-int,sign-extension,simd,tail-call"
            }
            false => {
                "v1/wasmtime-48/abi-1/fuel-1/rewrite-1/check-1/machine-1/aarch64:\
                 /features:bulk-memory,extended-const,floats,multi-value,mutable-global,\
                 reference-types,saturating-float-to-int,sign-extension,simd,tail-call"
            }
        };
        EngineProfile { text: with_checksum(text).into() }
    }
}

impl fmt::Display for EngineProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn with_checksum(body: &str) -> String {
    format!("{body}{CHECKSUM_MARK}{:08x}", crc32fast::hash(body.as_bytes()))
}

fn facts_of(body: &str) -> Option<EngineFacts> {
    let mut parts = body.split('/');
    let mut part = || parts.next();
    (part()? == "v1").then_some(())?;
    let (engine, engine_version) = part()?.rsplit_once('-')?;
    let (abi, fuel) = (part()?.strip_prefix("abi-")?, part()?.strip_prefix("fuel-")?);
    let rewrite = part()?.strip_prefix("rewrite-")?;
    let (check, machine) = (part()?.strip_prefix("check-")?, part()?.strip_prefix("machine-")?);
    let (cpu, cpu_features) = part()?.split_once(':')?;
    let features = part()?.strip_prefix("features:")?;
    if part().is_some() || !is_name(engine) || !is_name(cpu) {
        return None;
    }
    Some(EngineFacts {
        engine: engine.to_owned(),
        engine_version: number(engine_version)?,
        abi: number(abi)?,
        fuel: number(fuel)?,
        rewrite: number(rewrite)?,
        check: number(check)?,
        machine: number(machine)?,
        cpu: cpu.to_owned(),
        cpu_features: list_of(cpu_features)?,
        features: list_of(features)?,
    })
}

fn list_of(text: &str) -> Option<Vec<String>> {
    let names = text.split(',').filter(|_| !text.is_empty());
    names.map(|name| is_name(name).then(|| name.to_owned())).collect()
}

/// A number as it is printed: no sign, no zeros before it.
fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|number| number.to_string() == text)
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}

/// A loader that offers other profiles than it has, the first of them to new clusters, or another level. It plays
/// the program of another version in tests; guests run as they always do.
#[derive(Clone)]
pub struct Offering {
    /// Does the work.
    pub loader: SharedLoader,
    /// What it claims. None: what the loader has.
    pub profiles: Vec<EngineProfile>,
    /// The level that it claims.
    pub level: Level,
}

impl FsmLoader for Offering {
    fn engine(&self) -> EngineProfile {
        self.profiles.first().cloned().unwrap_or_else(|| self.loader.engine())
    }

    fn supports(&self, profile: &EngineProfile) -> Result<(), EngineUnsupported> {
        match self.profiles.contains(profile) {
            _ if self.profiles.is_empty() => self.loader.supports(profile),
            true => Ok(()),
            false => Err(EngineUnsupported { wanted: profile.clone(), offered: self.engine() }),
        }
    }

    fn level(&self) -> Level {
        self.level
    }

    fn beside(&self) -> Option<SharedLoader> {
        let loader = self.loader.beside()?;
        Some(Arc::new(Offering { loader, ..self.clone() }))
    }

    fn memory_backend(&self) -> &'static str {
        self.loader.memory_backend()
    }

    fn check(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        self.loader.check(module, limits)
    }

    fn is_prepared(&self, module: ModuleHash, limits: &Limits) -> bool {
        self.loader.is_prepared(module, limits)
    }

    fn retain(&self, modules: &[ModuleHash]) {
        self.loader.retain(modules);
    }

    fn instantiate(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        self.loader.instantiate(module, limits, context)
    }

    fn instantiate_blank(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        self.loader.instantiate_blank(module, limits, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> EngineFacts {
        EngineFacts {
            engine: "wasmtime".to_owned(),
            engine_version: 48,
            abi: 1,
            fuel: 2,
            rewrite: 3,
            check: 4,
            machine: 5,
            cpu: "x86-64".to_owned(),
            cpu_features: vec!["sse4.1".to_owned(), "popcnt".to_owned()],
            features: vec!["simd".to_owned(), "bulk-memory".to_owned()],
        }
    }

    const TEXT: &str = "v1/wasmtime-48/abi-1/fuel-2/rewrite-3/check-4/machine-5/x86-64:popcnt,sse4.1\
                        /features:bulk-memory,simd/crc-45401ece";

    #[test]
    fn equal_facts_have_one_text_and_it_leads_back_to_them() {
        let profile = EngineProfile::of(&facts());
        assert_eq!(profile.as_str(), TEXT);
        assert_eq!(EngineProfile::parse(TEXT), Ok(profile.clone()));
        let mut sorted = facts();
        sorted.cpu_features.sort();
        sorted.features.sort();
        assert_eq!(profile.facts(), Some(sorted));
        let none = EngineFacts { cpu_features: vec![], features: vec![], ..facts() };
        let profile = EngineProfile::of(&none);
        assert_eq!(profile.facts(), Some(none));
        assert_eq!(EngineProfile::parse(profile.as_str()), Ok(profile));
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        let canonical = |body: &str| EngineProfile::parse(&with_checksum(body));
        let body = TEXT.rsplit_once("/crc").expect("it ends so").0;
        assert_eq!(EngineProfile::parse(""), Err(ProfileError::Empty));
        let long = format!("v9/{}", "x".repeat(TEXT_MAX_BYTES));
        assert_eq!(EngineProfile::parse(&long), Err(ProfileError::TooLong(long.len())));
        for frame in [
            "v1",
            "v1/",
            "1/a/crc-00000000",
            "v/a/crc-00000000",
            "v01/a/crc-00000000",
            "v1/a/crc-0000000",
            "v1/a/crc-000000000",
            "v1/a b/crc-00000000",
            "v1/\n/crc-00000000",
            "v1/ä/crc-00000000",
        ] {
            assert_eq!(EngineProfile::parse(frame), Err(ProfileError::Frame), "{frame:?}");
        }
        for at in 3..body.len() {
            let mut changed = TEXT.as_bytes().to_vec();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).expect("still ASCII");
            assert!(EngineProfile::parse(&changed).is_err(), "{changed}");
        }
        assert_eq!(
            EngineProfile::parse(&TEXT.replace("fuel-2", "fuel-3")),
            Err(ProfileError::Checksum)
        );
        assert_eq!(EngineProfile::parse(&TEXT.to_uppercase()), Err(ProfileError::Frame));
        for (from, to) in [
            ("popcnt,sse4.1", "sse4.1,popcnt"),
            ("popcnt,sse4.1", "popcnt,popcnt,sse4.1"),
            ("popcnt,", "popcnt,,"),
            ("abi-1", "abi-01"),
            ("abi-1", "abi-+1"),
            ("fuel-2/", ""),
            ("simd", "SIMD"),
            ("/features:bulk-memory,simd", "/features:bulk-memory,simd/more-1"),
        ] {
            let wrong = canonical(&body.replace(from, to));
            assert_eq!(wrong, Err(ProfileError::NotCanonical), "{from} → {to}");
        }
        // What a later version says, it says in its own way.
        let later = canonical("v2/anything-goes;here").expect("framed");
        assert_eq!(later.facts(), None);
    }

    #[test]
    fn the_hash_covers_text_and_budgets() {
        let profile = EngineProfile::of(&facts());
        let limits = Limits::default();
        assert_eq!(
            profile.hash(&limits).to_string(),
            "ebb27bd91fb9b4ca885a1425eecefb266abd32288a5f15535d6e176895468bdb"
        );
        let other = Limits { log_lines_max: 65, ..limits.clone() };
        assert_ne!(profile.hash(&limits), profile.hash(&other));
        let other = EngineProfile::of(&EngineFacts { fuel: 3, ..facts() });
        assert_ne!(profile.hash(&limits), other.hash(&limits));
    }

    #[test]
    fn the_first_profile_is_one() {
        let first = EngineProfile::first();
        assert_eq!(EngineProfile::parse(first.as_str()), Ok(first));
    }
}
