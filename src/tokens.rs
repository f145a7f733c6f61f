//! Tokens: the clients beside the holder of API_TOKEN, and what each of these clients may do.
//!
//! A node answers from memory which token a request has. Where nodes share a store, only the follower of the store
//! writes to that memory, in the order of the changes. A new or deleted token is answered for when this node and each
//! live node have taken the change over. A node whose lease has run out lets no token in, as the token may be deleted.

mod access;
mod error;
mod text;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::Access;
pub use error::{Refusal, TokenError};
pub use text::TokenText;

use crate::config::Secret;
use crate::domain::{Added, FunctionId, Scope, TokenHash, TokenId, TokenName, TokenRecord, UnknownToken};
use crate::nodes::Membership;
use crate::resources::clock;
use crate::store::{Store, StoreError};

/// The largest number of tokens.
const MAX_TOKENS: u32 = 1000;
/// The time between two writings of last uses. A crash loses the uses of this time.
const NOTE_PERIOD: Duration = Duration::from_secs(30);
/// The time limit of a writing.
const NOTE_LIMIT: Duration = Duration::from_secs(5);

/// All tokens, and the changes of tokens.
#[derive(Debug)]
pub struct Tokens {
    store: Store,
    nodes: Arc<Membership>,
    api_token: Option<Secret>,
    known: RwLock<HashMap<TokenHash, Arc<Token>>>,
    /// Held through a change where this node is alone with its store: then the change is the memory's next state.
    changing: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
}

/// A token in memory.
#[derive(Debug)]
struct Token {
    record: Arc<TokenRecord>,
    /// The last use on this node, and the use that is written down, in Unix seconds.
    used: AtomicU64,
    noted: AtomicU64,
}

/// What a client asks for with a new token.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The token's name.
    pub name: TokenName,
    /// At least one scope.
    pub scopes: BTreeSet<Scope>,
    /// The only functions that the token's holder sees; None for all functions.
    pub functions: Option<BTreeSet<FunctionId>>,
    /// In Unix seconds.
    pub expires_at: Option<u64>,
}

impl Tokens {
    /// The tokens of the store, which are `all` in this moment. Without `api_token` every request has all rights.
    pub fn new(
        store: Store,
        nodes: Arc<Membership>,
        api_token: Option<Secret>,
        all: Vec<TokenRecord>,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let (known, changing) = (RwLock::default(), tokio::sync::Mutex::default());
        let tokens = Self { store, nodes, api_token, known, changing, tasks };
        tokens.take_over(all);
        Arc::new(tokens)
    }

    /// Whether the service asks for tokens: API_TOKEN is set.
    pub fn are_asked_for(&self) -> bool {
        self.api_token.is_some()
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.known.read().len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a request may do that shows this token, as API_TOKEN or as one of the tokens. The use is noted.
    pub fn access(&self, shown: Option<&str>) -> Result<Access, Refusal> {
        let Some(api_token) = &self.api_token else { return Ok(Access::all()) };
        let shown = shown.ok_or(Refusal::Unknown)?;
        if bool::from(shown.as_bytes().ct_eq(api_token.0.as_bytes())) {
            return Ok(Access::all());
        }
        if !TokenText::is_one(shown) {
            return Err(Refusal::Unknown);
        }
        // The look-up is by the hash, so its time tells nothing about the tokens there are.
        let found = self.known.read().get(&TokenHash::of(shown)).cloned();
        let now = clock::unix_seconds();
        if let Some(TokenRecord { name, expires_at: Some(end), .. }) = found.as_deref().map(|token| &*token.record)
            && *end <= now
        {
            return Err(Refusal::Expired(name.clone()));
        }
        // This comes after the look-up: a token that was found on a live node is not deleted on any node. A node that
        // is cut off knows neither the tokens that are gone nor those that are new.
        self.nodes.check()?;
        let token = found.ok_or(Refusal::Unknown)?;
        token.used.fetch_max(now, Ordering::Relaxed);
        Ok(Access::of(Arc::clone(&token.record)))
    }

    /// Whether a request that was let in would still be let in: its token is neither deleted nor expired.
    pub fn knows(&self, access: &Access) -> bool {
        let Some(token) = access.token() else { return true };
        let is_known = self.known.read().values().any(|known| known.record.id == token.id);
        is_known && token.expires_at.is_none_or(|end| end > clock::unix_seconds())
    }

    /// Whether a text is API_TOKEN, or has the form of a token.
    pub fn is_own(&self, text: &str) -> bool {
        let is_api_token = |token: &Secret| bool::from(text.as_bytes().ct_eq(token.0.as_bytes()));
        TokenText::is_one(text) || self.api_token.as_ref().is_some_and(is_api_token)
    }

    /// Makes a token. On return all live nodes know of the token. The text is shown here once, and kept nowhere.
    pub async fn create(self: &Arc<Self>, new: NewToken) -> Result<(TokenRecord, TokenText), TokenError> {
        let text = TokenText::random();
        let record = TokenRecord {
            id: TokenId::random(),
            name: new.name,
            hash: text.hash(),
            scopes: new.scopes,
            functions: new.functions,
            created_at: clock::unix_millis(),
            expires_at: new.expires_at,
            last_used: None,
        };
        let this = Arc::clone(self);
        // A task of its own: what is on disk must be in memory, too, when the caller has left meanwhile.
        let task = async move {
            let _changing = this.changing().await;
            let change = match this.store.insert_token(&record, MAX_TOKENS).await? {
                Added::Now(change) => change,
                Added::Taken => return Err(TokenError::Taken(record.name)),
                Added::Full => return Err(TokenError::TooMany(MAX_TOKENS)),
            };
            if !this.nodes.is_shared() {
                this.known.write().insert(record.hash, Arc::new(Token::from(record.clone())));
            }
            this.settle(change).await?;
            let scopes = record.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(",");
            tracing::info!(token.name = %record.name, token.scopes = scopes, "token made");
            Ok(record)
        };
        Ok((self.tasks.spawn(task).await??, text))
    }

    /// Deletes a token. On return no node lets the token in.
    pub async fn delete(self: &Arc<Self>, name: TokenName) -> Result<(), TokenError> {
        let this = Arc::clone(self);
        let task = async move {
            let _changing = this.changing().await;
            let deleted = this.store.delete_token(&name).await?;
            let change = deleted.ok_or_else(|| UnknownToken(name.to_string()))?;
            if !this.nodes.is_shared() {
                this.known.write().retain(|_, token| token.record.name != name);
            }
            this.settle(change).await?;
            tracing::info!(token.name = %name, "token deleted");
            Ok(())
        };
        self.tasks.spawn(task).await?
    }

    /// All tokens, the oldest first, with their last uses: those of this node, and those that other nodes have written
    /// down.
    pub async fn list(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.note_uses().await?;
        self.store.tokens().await
    }

    /// Takes over all tokens, as the store has them now.
    pub fn take_over(&self, all: Vec<TokenRecord>) {
        let mut known = self.known.write();
        let next = all.into_iter().map(|record| {
            // The last uses of a token that stays are not all written down.
            let token = known.get(&record.hash).map(Arc::clone);
            (record.hash, token.unwrap_or_else(|| Arc::new(record.into())))
        });
        *known = next.collect();
    }

    /// Writes last uses down again and again until the cancellation of `stop`, and then once more.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = time::sleep(NOTE_PERIOD) => false,
                () = stop.cancelled() => true,
            };
            let noted = time::timeout(NOTE_LIMIT, self.note_uses()).await;
            if !matches!(noted, Ok(Ok(()))) {
                tracing::debug!(?noted, "the last uses of tokens are not written down yet");
            }
            if is_last {
                return;
            }
        }
    }

    async fn note_uses(&self) -> Result<(), StoreError> {
        let used: Vec<(Arc<Token>, u64)> = {
            let known = self.known.read();
            let used = known.values().map(|token| (Arc::clone(token), token.used.load(Ordering::Relaxed)));
            used.filter(|(token, at)| token.noted.load(Ordering::Relaxed) < *at).collect()
        };
        if used.is_empty() {
            return Ok(());
        }
        let uses: Vec<_> = used.iter().map(|(token, at)| (token.record.id, *at)).collect();
        self.store.note_token_uses(&uses).await?;
        for (token, at) in used {
            token.noted.fetch_max(at, Ordering::Relaxed);
        }
        Ok(())
    }

    /// One change after the other, where the changes of this node are the memory's.
    async fn changing(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.nodes.is_shared() { None } else { Some(self.changing.lock().await) }
    }

    /// Returns when this node and each live node have taken the change over.
    async fn settle(&self, change: u64) -> Result<(), TokenError> {
        self.nodes.followed(change).await?;
        Ok(self.nodes.acknowledged(change).await?)
    }
}

impl From<TokenRecord> for Token {
    fn from(record: TokenRecord) -> Self {
        let used = record.last_used.unwrap_or_default();
        Self { record: Arc::new(record), used: AtomicU64::new(used), noted: AtomicU64::new(used) }
    }
}

#[cfg(test)]
mod tests;
