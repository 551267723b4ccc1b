//! Starts, serves, and stops so that nothing that money depends on is lost.

use weir_gateway::Clock;

use crate::cli::Json;
use crate::config::Config;

pub(crate) async fn serve(
    config: Config,
    warnings: &[String],
    output: Json,
    clock: Clock,
) -> anyhow::Result<()> {
    let _ = (&config, warnings, output);
    let accounts = crate::wire::accounts(&config, &clock).await?;
    let (catalog, _engines) = crate::wire::catalog(&config, &clock).await;
    let _ = crate::commands::accounts::demo(&accounts, clock.now()).await?;
    let _gateway = crate::wire::gateway(&config, catalog, accounts, clock);
    Ok(())
}
