//! Logins to RDS by IAM: each connection has a token for its password, an address of the server that AWS's credentials
//! have signed
//! (<https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html>).

#[cfg(feature = "aws")]
pub(super) use self::signed::RdsIam;

/// No program without AWS's library has one.
#[cfg(not(feature = "aws"))]
pub(super) struct RdsIam(std::convert::Infallible);

#[cfg(not(feature = "aws"))]
impl RdsIam {
    /// Errors: always, in a program that has no library for AWS's credentials.
    pub(super) fn new(
        place: &super::error::Place,
        _: &keyside_config::settings::BackendSettings,
        _: &keyside_config::settings::MysqlSettings,
        _: &keyside_config::settings::RdsIam,
        _: std::time::Duration,
    ) -> Result<Self, super::BackendError> {
        let hint = "build it with `--features zenml-sql,aws`, or give the user a password";
        Err(place.identity("wants a login by IAM, which this program was built without", hint.into()))
    }

    /// Never called: there is no such login.
    pub(super) async fn token(&self) -> Result<zeroize::Zeroizing<String>, super::BackendError> {
        match self.0 {}
    }

    /// Never called: there is no such login.
    pub(super) fn forget(&self) {
        match self.0 {}
    }
}

#[cfg(feature = "aws")]
mod signed {
    use std::time::{Duration, SystemTime};

    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
    use aws_sigv4::sign::v4;
    use keyside_config::settings::{self, BackendSettings, MysqlSettings};
    use keyside_protocol::json::SecretBuffer;
    use zeroize::Zeroizing;

    use super::super::super::BackendError;
    use super::super::super::aws::signer::Signer;
    use super::super::super::http::push_encoded;
    use super::super::error::Place;

    /// For how long a token is taken; AWS takes none for longer.
    const LIFETIME: Duration = Duration::from_secs(900);

    /// Longer than most tokens are, those with a session's among them.
    const USUAL_LENGTH: usize = 2048;

    /// Makes tokens for one user of one server.
    pub(in super::super) struct RdsIam {
        place: Place,
        signer: Signer,
        account: Account,
    }

    /// What a token is for.
    pub(super) struct Account {
        /// The server's own name, in its own words: a token for another name of it is refused.
        pub(super) host: String,
        pub(super) port: u16,
        pub(super) user: String,
        pub(super) region: String,
    }

    impl RdsIam {
        /// Looks for no credentials yet; `patience` is how long that may take for one connection.
        ///
        /// Errors: `Identity` where the network's settings cannot be used.
        pub(in super::super) fn new(
            place: &Place,
            settings: &BackendSettings,
            mysql: &MysqlSettings,
            iam: &settings::RdsIam,
            patience: Duration,
        ) -> Result<Self, BackendError> {
            let signer = Signer::new(settings, Some(iam.region.clone()), iam.role.clone(), patience)?;
            Ok(Self::of(place, mysql, iam, signer))
        }

        /// Takes the credentials of `signer`.
        pub(in super::super) fn of(
            place: &Place,
            mysql: &MysqlSettings,
            iam: &settings::RdsIam,
            signer: Signer,
        ) -> Self {
            let account = Account {
                host: mysql.host.clone(),
                port: mysql.port,
                user: mysql.user.clone(),
                region: iam.region.clone(),
            };
            Self { place: place.clone(), signer, account }
        }

        /// Returns a new token.
        ///
        /// Errors: `Identity` when there are no credentials, `Transient` when their source does not answer.
        pub(in super::super) async fn token(&self) -> Result<Zeroizing<String>, BackendError> {
            let credentials = self.signer.credentials().await?;
            token(&self.account, credentials, SystemTime::now()).ok_or_else(|| {
                let hint = "are `iam_region` and the user and host in `url` right?";
                self.place.identity("cannot be logged in to: no token can be signed for it", hint.into())
            })
        }

        /// Takes in that a token was refused: the next one is signed with credentials that are looked for anew.
        pub(in super::super) fn forget(&self) {
            self.signer.forget();
        }
    }

    /// Returns a token that these credentials sign.
    pub(super) fn token(account: &Account, credentials: Credentials, now: SystemTime) -> Option<Zeroizing<String>> {
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(LIFETIME);
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&account.region)
            .name("rds-db")
            .time(now)
            .settings(settings)
            .build()
            .ok()?
            .into();
        let mut user = SecretBuffer::with_capacity(account.user.len() * 3);
        push_encoded(&mut user, &account.user);
        let mut token = SecretBuffer::with_capacity(USUAL_LENGTH);
        token.push(format!("{}:{}/?Action=connect&DBUser=", account.host, account.port).as_bytes());
        // expose: the user's name.
        token.push(user.expose());
        // expose: the address, which is not signed yet.
        let url = format!("https://{}", std::str::from_utf8(token.expose()).ok()?);
        let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[])).ok()?;
        let (signature, _) = sign(request, &parameters).ok()?.into_parts();
        for (name, value) in signature.params() {
            token.push(format!("&{name}=").as_bytes());
            push_encoded(&mut token, value);
        }
        // expose: the password of one connection.
        let token = std::str::from_utf8(token.expose()).ok()?;
        Some(Zeroizing::new(token.to_owned()))
    }
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use std::time::{Duration, SystemTime};

    use aws_credential_types::Credentials;

    use super::signed::{Account, token};

    /// 2024-08-27T00:00:00Z.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_724_716_800)
    }

    /// Compares with what AWS's own library for Python makes (`generate_db_auth_token` of botocore 1.44.5).
    fn check(account: &Account, credentials: Credentials, expected: &str) {
        let token = token(account, credentials, now()).expect("signed");
        let parts = |token: &str| {
            let (address, query) = token.split_once('?').expect("a query");
            let mut query: Vec<String> = query.split('&').map(str::to_owned).collect();
            query.sort();
            (address.to_owned(), query)
        };
        assert_eq!(parts(&token), parts(expected));
    }

    #[test]
    fn a_token_is_what_the_library_of_aws_makes() {
        let account = Account {
            host: "prod-instance.us-east-1.rds.amazonaws.com".into(),
            port: 3306,
            user: "peccy".into(),
            region: "us-east-1".into(),
        };
        check(
            &account,
            Credentials::new("akid", "secret", None, None, "test"),
            "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=akid%2F20240827%2Fus-east-1%2Frds-db%2Faws4_request\
             &X-Amz-Date=20240827T000000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=c597c62a87de9174280571cea67bcecbaf0c0a979cff151de675c35276ff4e20",
        );
    }

    #[test]
    fn a_session_s_token_is_signed_too_and_a_user_may_be_called_anything() {
        let account = Account {
            host: "db.abc.eu-central-1.rds.amazonaws.com".into(),
            port: 3306,
            user: "zen+ml user@x".into(),
            region: "eu-central-1".into(),
        };
        check(
            &account,
            Credentials::new("AKIDEXAMPLE", "wJalr/K7MDENG", Some("FQoG/+session==".into()), None, "test"),
            "db.abc.eu-central-1.rds.amazonaws.com:3306/?Action=connect&DBUser=zen%2Bml%20user%40x\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20240827%2Feu-central-1%2Frds-db%2Faws4_request\
             &X-Amz-Date=20240827T000000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
             &X-Amz-Security-Token=FQoG%2F%2Bsession%3D%3D\
             &X-Amz-Signature=2e1d3e94abd26335c7f7f3570560ed362e747a48bc09656d868d26af32399d03",
        );
    }
}
