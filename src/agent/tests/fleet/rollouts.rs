//! Rollouts over several hosts, of which one is lost.

use crate::graph::OnFailure;

use super::super::rollouts::wanted;
use super::*;

impl Cluster {
    /// Returns on which host a container runs, waiting until it is made for `spec` there.
    async fn runs(&self, name: &str, spec: &str) -> usize {
        let begun = tokio::time::Instant::now();
        loop {
            for (at, node) in self.nodes.iter().enumerate() {
                let observed = node.engine.observe(None).await.expect("it answers");
                let mut all = observed.containers.into_values().filter(ObservedContainer::is_running);
                if all.any(|one| one.name == name && one.spec_hash.as_deref() == Some(spec)) {
                    return at;
                }
            }
            assert!(begun.elapsed() < DEADLINE, "{name} never runs as {spec}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until an agent's plan says that the rollout is paused.
    async fn is_paused_for(&self, at: usize) {
        let handle = self.agent(at).shared.project(&shop()).expect("it is up");
        let mut states = handle.state.subscribe();
        let failures = |state: &ProjectState| {
            let plan = state.plan.as_ref();
            plan.map(|plan| plan.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        let is_paused =
            |state: &ProjectState| failures(state).is_some_and(|all| all.contains("is paused, 1 of 3 replicas failed"));
        let in_time = tokio::time::timeout(DEADLINE, states.wait_for(is_paused)).await.is_ok();
        assert!(in_time, "not on {}: {:?}", self.nodes[at].name, failures(&handle.state.borrow()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_on_a_host_that_is_lost_is_known_also_to_an_agent_that_starts_anew() {
    let mut cluster = Cluster::start(3).await;
    assert!(is_done(&cluster.agent(0).up(&wanted("old", OnFailure::Pause)).await));
    cluster.becomes("one on each", &[1, 1, 1]).await;
    let request = UpRequest::new(wanted("new", OnFailure::Pause));
    let events = cluster.agent(0).handler.up(shop(), request).await.expect("accepted");
    let lost = cluster.runs("shop-web-1", "new").await;
    cluster.nodes[lost].engine.crash("shop-web-1", 3);
    for at in 0..3 {
        cluster.is_paused_for(at).await;
    }
    drop(events);
    cluster.cut(lost);
    cluster.nodes[lost].agent.take().expect("it runs").kill().await;
    let anew = (lost + 1) % 3;
    cluster.cut(anew);
    cluster.nodes[anew].agent.take().expect("it runs").kill().await;
    cluster.boot(anew).await;
    cluster.is_paused_for(anew).await;
    cluster.end().await;
}
