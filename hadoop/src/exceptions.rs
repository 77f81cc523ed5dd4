//! Exception classes by the name under which a Java client rebuilds and acts on them.

use std::fmt;

/// What the stock YARN client does on receiving an exception in an answer with status ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The caller gets the exception at once, the message as its text.
    AtOnce,
    /// The client tries again, about 30 s apart, for up to 15 minutes: to a person it looks hung.
    Retried,
}

macro_rules! exception_classes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $reaction:ident;)*) => {
        /// Exception classes Bobbin answers with. All have a constructor of one String, without
        /// which the client could not rebuild them.
        ///
        /// Source: `RemoteException.unwrapRemoteException`, `RMProxy.createRetryPolicy`; a test
        /// looks every class up in Hadoop's jars.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ExceptionClass {
            $($(#[$doc])* $variant,)*
        }

        impl ExceptionClass {
            pub const ALL: &[ExceptionClass] = &[$(ExceptionClass::$variant,)*];

            /// The Java class, with its package.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(ExceptionClass::$variant => $name,)*
                }
            }

            /// What the stock client does with it.
            #[must_use]
            pub fn reaction(self) -> Reaction {
                match self {
                    $(ExceptionClass::$variant => Reaction::$reaction,)*
                }
            }
        }
    };
}

exception_classes! {
    /// Anything that has no better class, methods that Bobbin does not offer included.
    Yarn = "org.apache.hadoop.yarn.exceptions.YarnException", AtOnce;
    ApplicationNotFound = "org.apache.hadoop.yarn.exceptions.ApplicationNotFoundException", AtOnce;
    /// Ends an application master at once, without unregistering: the answer to a stale attempt.
    ApplicationAttemptNotFound = "org.apache.hadoop.yarn.exceptions.ApplicationAttemptNotFoundException", AtOnce;
    ContainerNotFound = "org.apache.hadoop.yarn.exceptions.ContainerNotFoundException", AtOnce;
    ApplicationIdNotProvided = "org.apache.hadoop.yarn.exceptions.ApplicationIdNotProvidedException", AtOnce;
    InvalidResourceRequest = "org.apache.hadoop.yarn.exceptions.InvalidResourceRequestException", AtOnce;
    InvalidResourceBlacklistRequest = "org.apache.hadoop.yarn.exceptions.InvalidResourceBlacklistRequestException", AtOnce;
    InvalidContainerRelease = "org.apache.hadoop.yarn.exceptions.InvalidContainerReleaseException", AtOnce;
    /// A response id that is neither the expected one nor a repetition of the last.
    InvalidApplicationMasterRequest = "org.apache.hadoop.yarn.exceptions.InvalidApplicationMasterRequestException", AtOnce;
    /// The client registers again and repeats all its asks with response id 0.
    ApplicationMasterNotRegistered = "org.apache.hadoop.yarn.exceptions.ApplicationMasterNotRegisteredException", AtOnce;
    YarnRuntime = "org.apache.hadoop.yarn.exceptions.YarnRuntimeException", AtOnce;
    InvalidContainer = "org.apache.hadoop.yarn.exceptions.InvalidContainerException", AtOnce;
    InvalidAuxService = "org.apache.hadoop.yarn.exceptions.InvalidAuxServiceException", AtOnce;
    NmNotYetReady = "org.apache.hadoop.yarn.exceptions.NMNotYetReadyException", AtOnce;
    InvalidLabelResourceRequest = "org.apache.hadoop.yarn.exceptions.InvalidLabelResourceRequestException", AtOnce;
    /// A request that cannot be what the protocol allows.
    IllegalArgument = "java.lang.IllegalArgumentException", AtOnce;
    UnsupportedOperation = "java.lang.UnsupportedOperationException", AtOnce;
    AccessControl = "org.apache.hadoop.security.AccessControlException", AtOnce;
    Authorization = "org.apache.hadoop.security.authorize.AuthorizationException", AtOnce;
    /// An unknown, expired or revoked token.
    InvalidToken = "org.apache.hadoop.security.token.SecretManager$InvalidToken", AtOnce;
    /// A wrong password, or a malformed exchange of SASL.
    Sasl = "javax.security.sasl.SaslException", AtOnce;
    Retriable = "org.apache.hadoop.ipc.RetriableException", AtOnce;
    /// This resource manager is not the active one: the client tries the next.
    Standby = "org.apache.hadoop.ipc.StandbyException", Retried;
    Io = "java.io.IOException", Retried;
    FileNotFound = "java.io.FileNotFoundException", Retried;
    NoSuchMethod = "org.apache.hadoop.ipc.RpcNoSuchMethodException", Retried;
    NoSuchProtocol = "org.apache.hadoop.ipc.RpcNoSuchProtocolException", Retried;
    /// A frame that cannot be understood.
    RpcServer = "org.apache.hadoop.ipc.RpcServerException", Retried;
}

impl fmt::Display for ExceptionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An answer that is an exception: the class a client acts on and the text its user reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct RpcException {
    pub class: ExceptionClass,
    /// Reaches the user's terminal: it names the remedy.
    pub message: String,
}

/// Longest message sent to a client, bytes: a stack of causes must not fill a frame.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

impl RpcException {
    #[must_use]
    pub fn new(class: ExceptionClass, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            let cut = message.floor_char_boundary(MESSAGE_BYTES_MAX);
            message.truncate(cut);
        }
        Self { class, message }
    }

    /// The answer to a method that Bobbin does not offer; a client gets it at once.
    #[must_use]
    pub fn not_offered(method: &str, instead: &str) -> Self {
        let shown: String = method
            .chars()
            .filter(|c| !c.is_control())
            .take(80)
            .collect();
        Self::new(
            ExceptionClass::Yarn,
            format!("Bobbin does not offer {shown}: {instead}"),
        )
    }

    /// The answer to a request that cannot be decoded.
    #[must_use]
    pub fn malformed(method: &str, error: &crate::wire::WireError) -> Self {
        let shown: String = method
            .chars()
            .filter(|c| !c.is_control())
            .take(80)
            .collect();
        Self::new(
            ExceptionClass::IllegalArgument,
            format!("The request of {shown} cannot be read: {error}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_not_offered_is_not_retried() {
        let exception = RpcException::not_offered("getNewReservation", "there are no reservations");
        assert_eq!(exception.class.reaction(), Reaction::AtOnce);
        assert_eq!(
            exception.to_string(),
            "org.apache.hadoop.yarn.exceptions.YarnException: Bobbin does not offer \
             getNewReservation: there are no reservations"
        );
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let exception = RpcException::new(ExceptionClass::Yarn, "é".repeat(MESSAGE_BYTES_MAX));
        assert!(exception.message.len() <= MESSAGE_BYTES_MAX);
        assert!(exception.message.ends_with('é'));
    }
}
