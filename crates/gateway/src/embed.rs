//! Embeddings: admitted, held for and settled like a generation with a prompt and no output.

use tokio::time::Instant;
use weir_accounts::{Caller, Outcome};
use weir_engine::embed::{EmbedRequest, Embedded};
use weir_engine::{Allowance, Usage};

use crate::bill::{Bill, Ending, Order, Settled};
use crate::{Admitted, Gateway, Refusal, STORE_RETRY};

/// A request for a model's embeddings.
#[derive(Debug, Clone)]
pub struct EmbedJob {
    /// Unique for each request. The hold and the usage record carry this id.
    pub request_id: String,
    pub model: String,
    pub request: EmbedRequest,
}

impl Gateway {
    /// Computes embeddings and returns them once they are settled. A caller that hangs up before pays nothing.
    pub async fn embed(&self, caller: &Caller, job: EmbedJob) -> Result<Embedded, Refusal> {
        let EmbedJob {
            request_id,
            model,
            mut request,
        } = job;
        let Admitted {
            account,
            offer,
            engine,
            mut permit,
        } = self.admit(caller, &model).await?;
        request.account = account;
        let refused = |error| Refusal::from_engine(error, &offer.id);
        let embeddings = engine.embeddings().ok_or_else(|| Refusal::Unsupported {
            model: offer.id.clone(),
            feature: "embeddings",
        })?;
        let prepared = embeddings.prepare_embed(request).await.map_err(refused)?;
        permit.admit_tokens(prepared.tokens, Instant::now()).await?;
        let order = Order {
            caller: caller.clone(),
            request_id,
            model,
            price: offer.price,
            prompt_tokens: prepared.tokens,
            output_tokens_max: 0,
            explicit: true,
            allowance: Allowance::unlimited(),
        };
        let bill = Bill::open(self, order, permit).await?;
        match prepared.run().await {
            Ok(embedded) => {
                let used = Usage {
                    prompt: embedded.tokens,
                    ..Usage::default()
                };
                let ending = Ending {
                    used,
                    outcome: Outcome::Success,
                    delivered: Usage::default(),
                };
                match bill.settle(self, ending).await {
                    Settled::Durably => Ok(embedded),
                    Settled::NotYet => Err(Refusal::StoreUnavailable {
                        retry_after: STORE_RETRY,
                    }),
                }
            }
            Err(error) => {
                bill.cancel(self.clone()).await;
                Err(refused(error))
            }
        }
    }
}
