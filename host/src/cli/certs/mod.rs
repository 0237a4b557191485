//! `raft-host certs`: a CA for a cluster, certificates for nodes and clients.

mod show;
mod told;

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use raft_host_proto::client::ClusterId as ClusterIdOption;

use super::exit::{Ended, Exit, Failure};
use super::output::{Output, print_json, print_text};
use crate::certs::{
    AuthorityError, EntryName, First, Folder, FolderError, Host, Kind, MAX_DAYS, NewNode,
};
use crate::types::{ClusterId, NodeId};

/// Makes certificates for nodes and clients, and says what certificates are. Asks no running node.
///
/// `init` makes a folder with a CA; `node` and `client` issue what one node or client needs: a folder of
/// certificate.pem, key.pem and ca.pem, to be copied to its machine. Nothing that is there is written over.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct CertsArgs {
    #[command(subcommand)]
    action: Action,
    /// (init, node) The cluster: 32 hexadecimal digits [default: init draws one, for a cluster that is to be
    /// formed; node takes the one of the folder].
    #[arg(long, global = true, value_name = "ID")]
    cluster_id: Option<ClusterIdOption>,
    /// Text for people or JSON for scripts.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Makes a folder with a new CA, and on request all that a first cluster needs.
    Init {
        /// The folder to make.
        dir: PathBuf,
        /// A node, by a name for its folder, and where it is dialed; repeated for each. The first gets id 1.
        #[arg(long = "node", value_name = "NAME=HOST[,HOST…]", value_parser = parse_node)]
        nodes: Vec<(EntryName, Vec<Host>)>,
        /// A client, by its name; repeated for each.
        #[arg(long = "client", value_name = "NAME")]
        clients: Vec<EntryName>,
        /// How long the CA is valid [default: 3650].
        #[arg(long, value_parser = days())]
        days: Option<u32>,
    },
    /// Issues a certificate for a node.
    Node {
        /// The folder of the CA.
        dir: PathBuf,
        /// A name for its folder.
        #[arg(long)]
        name: EntryName,
        /// Where it is dialed, by clients and other nodes: names or IP addresses, comma-separated or repeated.
        #[arg(long = "address", value_name = "HOST", required = true, value_delimiter = ',')]
        addresses: Vec<Host>,
        /// Its id, for a node that has one already [default: the next one that no node has had].
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        id: Option<u64>,
        /// How long it is valid [default: 397].
        #[arg(long, value_parser = days())]
        days: Option<u32>,
    },
    /// Issues a certificate for a client.
    Client {
        /// The folder of the CA.
        dir: PathBuf,
        /// Its name, by which it is given rights.
        #[arg(long)]
        name: EntryName,
        /// How long it is valid [default: 365].
        #[arg(long, value_parser = days())]
        days: Option<u32>,
    },
    /// Issues new certificates, with new keys, to those who have one: in the same place.
    Renew {
        /// The folder of the CA.
        dir: PathBuf,
        /// A node, by the name of its folder.
        #[arg(long, required_unless_present_any = ["client", "all"])]
        name: Option<EntryName>,
        /// Where the node is dialed from now on [default: where it was].
        #[arg(
            long = "address",
            value_name = "HOST",
            value_delimiter = ',',
            conflicts_with_all = ["client", "all"]
        )]
        addresses: Vec<Host>,
        /// A client, by the name of its folder.
        #[arg(long, conflicts_with = "name")]
        client: Option<EntryName>,
        /// All nodes and clients.
        #[arg(long, conflicts_with_all = ["name", "client"])]
        all: bool,
        /// How long they are valid [default: 397 for nodes, 365 for clients].
        #[arg(long, value_parser = days())]
        days: Option<u32>,
    },
    /// Begins to change the CA: a new one signs from now on, and both are to be trusted until --finish.
    RotateCa {
        /// The folder of the CA.
        dir: PathBuf,
        /// Trust the old one no longer: when all certificates are of the new one, and in use.
        #[arg(long)]
        finish: bool,
        /// How long the new CA is valid [default: 3650].
        #[arg(long, value_parser = days(), conflicts_with = "finish")]
        days: Option<u32>,
    },
    /// Says what certificates are, and until when. Ends with 1 when one has expired or cannot be read.
    Show {
        /// Files, or folders with such files.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

impl CertsArgs {
    /// Whether the action is about a cluster that may be named.
    pub(super) fn takes_cluster(&self) -> bool {
        matches!(self.action, Action::Init { .. } | Action::Node { .. })
    }
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS))
}

fn parse_node(text: &str) -> Result<(EntryName, Vec<Host>), String> {
    let (name, hosts) = text
        .split_once('=')
        .ok_or_else(|| "expected NAME=HOST, such as n1=10.0.0.1,n1.example.org".to_owned())?;
    let name = name.parse().map_err(|error| format!("{error}"))?;
    let hosts: Result<Vec<Host>, String> =
        hosts.split(',').map(|host| host.parse().map_err(|error| format!("{error}"))).collect();
    Ok((name, hosts?))
}

pub(super) fn run(args: &CertsArgs) -> Ended {
    let now = SystemTime::now();
    let cluster = args
        .cluster_id
        .map(|id| id.to_string().parse::<ClusterId>())
        .transpose()
        .map_err(|error| Failure::usage(error.to_string()))?;
    let told = match &args.action {
        Action::Init { dir, nodes, clients, days } => {
            let cluster = cluster.unwrap_or_else(|| ClusterId(rand::random()));
            let (nodes, clients) = (nodes.clone(), clients.clone());
            let first = First { cluster, days: *days, nodes, clients };
            let (ca, entries) = Folder::create(dir, &first, now).map_err(failure)?;
            told::Told { dir, cluster, ca: Some(ca), entries }.init(now)
        }
        Action::Node { dir, name, addresses, id, days } => {
            let folder = Folder::open(dir).map_err(failure)?;
            let (name, hosts, id, days) = (*name, addresses.clone(), id.map(NodeId), *days);
            let node = NewNode { name, hosts, id, cluster, days };
            let entries = vec![folder.add_node(&node, now).map_err(failure)?];
            let cluster = cluster.unwrap_or(folder.cluster());
            told::Told { dir, cluster, ca: None, entries }.issued(now)
        }
        Action::Client { dir, name, days } => {
            let folder = Folder::open(dir).map_err(failure)?;
            let entries = vec![folder.add_client(*name, *days, now).map_err(failure)?];
            told::Told { dir, cluster: folder.cluster(), ca: None, entries }.issued(now)
        }
        Action::Renew { dir, name, addresses, client, all: _, days } => {
            let folder = Folder::open(dir).map_err(failure)?;
            let which = match (name, client) {
                (Some(name), _) => vec![(Kind::Node, name.as_str().to_owned())],
                (None, Some(name)) => vec![(Kind::Client, name.as_str().to_owned())],
                (None, None) => folder.entries().map_err(failure)?,
            };
            if which.is_empty() {
                return Err(Failure::new(format!("{} has issued nothing yet", dir.display())));
            }
            let entries = folder.renew(&which, addresses, *days, now).map_err(failure)?;
            told::Told { dir, cluster: folder.cluster(), ca: None, entries }.renewed(now)
        }
        Action::RotateCa { dir, finish, days } => {
            let folder = Folder::open(dir).map_err(failure)?;
            let rotation = match finish {
                true => folder.finish_rotation(),
                false => folder.rotate(*days, now),
            };
            told::rotated(dir, folder.cluster(), &rotation.map_err(failure)?, *finish, now)
        }
        Action::Show { paths } => return show::run(args.output, paths, now),
    };
    match args.output {
        Output::Json => print_json(&told.json)?,
        Output::Table => print_text(&told.text)?,
    }
    Ok(Exit::Done)
}

fn failure(error: FolderError) -> Failure {
    match error {
        FolderError::NoFolder(_)
        | FolderError::NoParent { .. }
        | FolderError::Outlived { .. }
        | FolderError::NoEntry(_)
        | FolderError::Authority(
            AuthorityError::BadDays(_)
            | AuthorityError::BadNode(_)
            | AuthorityError::TooManyHosts(_)
            | AuthorityError::NoHosts,
        ) => Failure::usage(error.to_string()),
        other => Failure::new(other.to_string()),
    }
}
