//! `raft-host export`: the state machine's own portable snapshot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use raft_host_proto::v1;
use raft_host_proto::v1::export_response::Part;
use serde_json::json;

use super::backup::Target;
use super::exit::{Ended, Failure};
use super::output::{hex, human_bytes, short_hash};
use super::progress::Progress;
use super::remote::{self, RemoteArgs};

/// Until the guest has written its snapshot.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Until the next part comes.
const PART_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes what the state machine's own `snapshot` says of the asked node's state: bytes whose form the
/// application chose.
///
/// `raft-host --plugin FILE --import EXPORT` forms a cluster with them. A backup (`raft-host backup`)
/// holds more: sessions, modules, limits and history.
#[derive(Args, Clone, Debug)]
pub(super) struct ExportArgs {
    /// Where to; - is standard output. A file that is there is left alone.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

pub(super) fn run(args: &ExportArgs) -> Ended {
    let path = &args.file;
    let mut target = Target::open(path)?;
    let info = remote::block_on(async { export(&args.remote, &mut target).await })?;
    let is_stdout = matches!(target, Target::Stdout);
    target.finish()?;
    let value = json!({
        "file": path.display().to_string(),
        "bytes": info.total_bytes,
        "index": info.index,
        "module_hash": hex(&info.module_hash),
        "label": info.label,
    });
    Target::conclude(is_stdout, args.remote.output, &text(path, is_stdout, &info), &value)
}

fn text(path: &Path, is_stdout: bool, info: &v1::ExportInfo) -> String {
    let place = if is_stdout { "standard output".to_owned() } else { path.display().to_string() };
    format!(
        "exported the state of {} ({}) at index {} to {place}: {}",
        info.label,
        short_hash(&info.module_hash),
        info.index,
        human_bytes(info.total_bytes)
    )
}

async fn export(remote: &RemoteArgs, target: &mut Target) -> Result<v1::ExportInfo, Failure> {
    let broken = |words: &str| Failure::new(format!("the node broke off{words}; try again"));
    let client = remote.client_with(TIMEOUT).await?;
    let patience = remote.timeout_or(PART_TIMEOUT);
    let begun = client.export().await;
    let mut parts = begun.map_err(|error| remote::failed_question(&error))?;
    let first = remote::next_part(&mut parts, patience).await?;
    let Some(Part::Info(info)) = first.and_then(|first| first.part) else {
        return Err(broken(" before it said what comes"));
    };
    let (progress, mut bytes) = (Progress::begin("exporting"), 0);
    while let Some(next) = remote::next_part(&mut parts, patience).await? {
        if let Some(Part::Data(data)) = next.part {
            target.put(&data)?;
            bytes += data.len() as u64;
            progress.tell(bytes);
        }
    }
    match bytes == info.total_bytes {
        true => Ok(info),
        false => Err(broken(&format!(" after {bytes} of {} bytes", info.total_bytes))),
    }
}
