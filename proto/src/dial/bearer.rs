//! A token, shown with each request.

use tonic::metadata::Ascii;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::Target;
use crate::Secret;

/// A channel whose requests show a token, if there is one.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// Writes `authorization: Bearer …` into requests; without a token it writes nothing.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

/// Why a token is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Others could read it.
    #[error(
        "the token is not sent to {0}: others could read it on the way there, as that address is not of this \
         machine and no TLS is spoken; give the cluster's CA (--tls-ca FILE) or write https://"
    )]
    Readable(String),
    /// It is none.
    #[error("the token is none: it has characters that no token has")]
    Malformed,
}

impl Bearer {
    /// For requests to that place.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn new(token: Option<&Secret>, target: &Target) -> Result<Bearer, TokenError> {
        match token {
            Some(_) if !target.is_private() => Err(TokenError::Readable(target.to_string())),
            token => Bearer::in_the_open(token),
        }
    }

    /// The same wherever the requests go: for those who know that nobody else reads them.
    ///
    /// # Errors
    /// The token is none.
    pub fn in_the_open(token: Option<&Secret>) -> Result<Bearer, TokenError> {
        let Some(token) = token else { return Ok(Bearer(None)) };
        let value = MetadataValue::try_from(format!("Bearer {}", token.expose()));
        let mut value = value.map_err(|_| TokenError::Malformed)?;
        // Nor does `Debug` of a request show it.
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    /// Writes it into one request.
    pub fn sign<T>(&self, request: &mut Request<T>) {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
    }

    /// On a channel.
    pub fn on(self, channel: Channel) -> Authorized {
        InterceptedService::new(channel, self)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.sign(&mut request);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_only_where_nobody_else_reads_it() {
        let token = Secret::new("rh1.abc");
        let to = |address: &str| Bearer::new(Some(&token), &address.parse().expect("an address"));
        for private in ["https://a:1", "unix:/a", "127.0.0.1:1"] {
            let bearer = to(private).expect("private");
            let mut request = Request::new(());
            bearer.sign(&mut request);
            let shown = request.metadata().get("authorization").expect("it is there");
            assert_eq!(shown.as_encoded_bytes(), b"Bearer rh1.abc");
            assert!(!format!("{bearer:?} {request:?}").contains("abc"));
        }
        let refused = to("10.0.0.1:1").unwrap_err();
        assert!(refused.to_string().contains("others could read it"), "{refused}");
        let nonsense = Secret::new("a\nb");
        let malformed = Bearer::in_the_open(Some(&nonsense)).unwrap_err();
        assert_eq!(malformed, TokenError::Malformed);
    }
}
