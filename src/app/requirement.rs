//! REQUIRE_ISOLATION: the service serves no request before the isolation was found complete.

use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::docker::health::Health;
use crate::sandbox::isolation::Isolation;

/// The time that a Docker which does not answer has until the check of the isolation is given up.
const TROUBLE_LIMIT: Duration = Duration::from_secs(10);
/// The time limit for the check of the isolation: for the runtime images and a look into a container of each.
const CHECK_LIMIT: Duration = Duration::from_secs(40 * 60);

/// The reason why the service must not serve, where REQUIRE_ISOLATION is set. Waits for the check; meanwhile no request
/// is served.
pub(super) async fn refusal(
    isolation: &Isolation,
    checked: &CancellationToken,
    health: &Health,
    stop: &CancellationToken,
) -> Option<String> {
    tracing::info!("REQUIRE_ISOLATION: serving once it was looked whether isolation is complete");
    let in_lasting_trouble = async {
        loop {
            health.clone().in_trouble().await;
            // Docker's answer may come late while a runtime image is built.
            time::sleep(TROUBLE_LIMIT).await;
            if health.trouble().is_some() {
                return;
            }
        }
    };
    tokio::select! {
        () = checked.cancelled() => {}
        () = in_lasting_trouble => return Some("REQUIRE_ISOLATION is true, but Docker does not answer".to_owned()),
        () = time::sleep(CHECK_LIMIT) => return Some("REQUIRE_ISOLATION is true, but it could not be checked in \
                                                      time".to_owned()),
        () = stop.cancelled() => return None,
    }
    let missing = isolation.missing_of_functions();
    (!missing.is_empty())
        .then(|| format!("REQUIRE_ISOLATION is true, but isolation is not complete: {}", missing.join("; ")))
}
