-- The database of minijwt before schema 2, with a user for whom the tutorial's tokens were good, and one for whom not.
CREATE TABLE user (
    name TEXT PRIMARY KEY,       -- NFC
    password TEXT NOT NULL,      -- as hash_password makes it
    epoch TEXT NOT NULL,         -- random; copied into refresh tokens, which are void when it changes
    tutorial INTEGER NOT NULL    -- 1: tokens of the tutorial's own app, which have no epoch, are good too
) WITHOUT ROWID;
CREATE TABLE session (           -- only those that were rotated or ended; without a row: generation 0, alive
    sid TEXT PRIMARY KEY,
    generation INTEGER NOT NULL, -- of the newest refresh token
    rotated REAL NOT NULL,       -- when it was made, seconds since 1970
    ended INTEGER NOT NULL,      -- 1: no token of this session is ever good again
    expires INTEGER NOT NULL     -- the exp of all its tokens, seconds since 1970: then the row may go
) WITHOUT ROWID;
CREATE INDEX session_expires ON session (expires);
CREATE TABLE failure (           -- attempts to log in, by account and address
    key BLOB PRIMARY KEY,        -- a digest of both
    attempts INTEGER NOT NULL,
    next REAL NOT NULL,          -- when the next attempt is allowed, seconds since 1970
    expires REAL NOT NULL        -- when all is forgotten
) WITHOUT ROWID;
CREATE INDEX failure_expires ON failure (expires);
CREATE TABLE pruned (
    latest INTEGER NOT NULL      -- the largest session.expires that was ever deleted
);
INSERT INTO pruned VALUES (0);
INSERT INTO user VALUES ('ann', 'scrypt$2$1$1$00$00', 'eeeeeeeeeeeeeeee', 1), ('bob', 'pbkdf2$1$00$00', 'ffffffffffffffff', 0);
INSERT INTO session VALUES ('rotated', 3, 1800000000.5, 0, 1800086400), ('ended', 0, 0, 1, 1800086400);
INSERT INTO failure VALUES (x'00ff', 12, 1800000030, 1800086400);
UPDATE pruned SET latest = 1799999999;
PRAGMA application_id = 1835693940;
PRAGMA user_version = 1;
