//! The one task that looks at machines when something happens to them, and the tasks of the lives that need one.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::fleet::Fleet;
use super::life::Life;
use super::network::Network;

/// Keeps the hosts of a fleet alive until `shutdown`.
pub(in crate::emulator) async fn keep(fleet: Fleet, shutdown: CancellationToken) {
    let hosts = &fleet.0.hosts;
    let network = Arc::new(Network::new(&hosts.settings));
    let mut lives = JoinSet::new();
    loop {
        let (due, next) = hosts.alarms.due(fleet.now());
        for index in due {
            if let Some(system) = fleet.0.systems.get(index) {
                system.at(fleet.now(), |_| ());
            }
        }
        for start in hosts.alarms.starts() {
            let (fleet, network) = (fleet.clone(), Arc::clone(&network));
            lives.spawn(async move {
                let life = Life::new(&fleet, &network, &start);
                tokio::select! {
                    biased;
                    () = start.over.cancelled() => {}
                    () = life.run() => {}
                }
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = hosts.alarms.rung() => {}
            () = fleet.0.clock.sleep_until(next) => {}
            Some(ended) = lives.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a host of the emulator ended with an error");
                }
            }
        }
    }
    lives.shutdown().await;
}
