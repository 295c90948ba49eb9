//! The back-end on a real MariaDB. Each test has a server of its own; where MariaDB is not installed it says so and passes.

mod faults;
#[cfg(feature = "aws")]
mod iam;
mod rows;
mod secured;
mod server;

use super::*;
use server::{MariaDb, no_network};

/// The tables of ZenML 0.98 on MySQL, as far as they matter, as it makes them.
const TABLES: &str = "
    CREATE TABLE user (id char(32) NOT NULL PRIMARY KEY, created datetime NOT NULL, updated datetime NOT NULL,
        name varchar(255) NOT NULL, is_service_account tinyint(1) NOT NULL, full_name varchar(255) NOT NULL,
        active tinyint(1) NOT NULL, is_admin tinyint(1) NOT NULL, UNIQUE KEY name (name, is_service_account));
    CREATE TABLE secret (id char(32) NOT NULL PRIMARY KEY, created datetime NOT NULL, updated datetime NOT NULL,
        name varchar(255) NOT NULL, private tinyint(1) NOT NULL, internal tinyint(1) NOT NULL,
        `values` mediumtext DEFAULT NULL, user_id char(32) NOT NULL,
        UNIQUE KEY unique_secret_name_private_scope_user (name, private, user_id),
        CONSTRAINT fk_secret_user_id_user FOREIGN KEY (user_id) REFERENCES user (id) ON DELETE CASCADE);
    CREATE TABLE server_settings (id char(32) NOT NULL PRIMARY KEY, server_name varchar(255) NOT NULL);
    INSERT INTO user VALUES ('0000000000000000000000000000000a', '2026-01-01', '2026-01-01', 'default', 0, '', 1, 1),
        ('0000000000000000000000000000000b', '2026-01-01', '2026-01-01', 'bob', 0, '', 1, 0);
    INSERT INTO server_settings VALUES ('000000000000000000000000000000dd', 'default');";

/// The user `default`.
const OWNER: &str = "0000000000000000000000000000000a";

/// Opens `database` as the user `zenml`.
fn open(server: &MariaDb, database: &str, options: &Options) -> Opened {
    open_with(server.settings(database), no_network(), options).expect("settings that can work")
}

fn open_with(
    mysql: keyside_config::settings::MysqlSettings,
    network: NetworkSettings,
    options: &Options,
) -> Result<Opened, BackendError> {
    let mut settings = settings_of(SqlDatabase::Mysql(Box::new(mysql)), options);
    settings.network = network;
    super::super::super::open(&settings, options.max_value)
}
