//! A cluster that was made of another one: what its nodes and clients must show.

use crate::types::{ClusterId, Member};

/// Says which certificates the new cluster needs; whether the old one had any stands in no data directory.
pub(super) fn certificates_needed(cluster: ClusterId, founder: &Member) -> String {
    let host = founder.address.rsplit_once(':').map_or(&*founder.address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    format!(
        "If nodes show certificates (--tls): those of the old cluster, of nodes and of clients, name it and are \
         refused, and no node starts with one. Make new ones, for ids from {} on, and start each node with its \
         own:\n\n  raft-host certs init DIR --cluster-id {cluster} --node n1={host} --client admin",
        founder.id
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::FOUNDER;

    #[test]
    fn the_command_names_the_new_cluster_and_where_its_first_node_is() {
        let cluster = ClusterId([0xab; 16]);
        for (address, host) in [("10.0.0.1:7400", "10.0.0.1"), ("[::1]:7400", "::1")] {
            let founder = Member { id: FOUNDER, address: address.to_owned() };
            let words = certificates_needed(cluster, &founder);
            let command = format!(
                "\n  raft-host certs init DIR --cluster-id {cluster} --node n1={host} --client admin"
            );
            assert!(words.ends_with(&command) && words.contains("for ids from 1 on"), "{words}");
        }
    }
}
