// The apps that the brokers of the tests serve.

const pair = (name) => ({ key: `${name}-key`, secret: `${name}-secret` });

// The master key of the protocol's encryption vector. It is the app's own: the broker never learns it.
const masterKey = 'MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=';

/** Nearly every story plays here. */
export const shop = { id: '1', keys: [pair('shop'), pair('shop-spare')], client_events: true, masterKey };
/** Client events are off, as they are by default. */
export const quiet = { id: '2', keys: [pair('quiet')] };
/** Tells everyone how many subscriptions a channel has. */
export const counted = { id: '3', keys: [pair('counted')], subscription_counts: true, client_events: true };
/** Switched off. */
export const closed = { id: '4', keys: [pair('closed')], enabled: false };
/** Only reached over TLS. */
export const sealed = { id: '5', keys: [pair('sealed')], tls_only: true };
/** Room for one connection. */
export const single = { id: '6', keys: [pair('single')], connections_max: 1 };
/** Room for two members in a presence channel. */
export const small = { id: '7', keys: [pair('small')], presence_members_max: 2 };
/** A connection has two seconds to say who it is. */
export const guarded = { id: '8', keys: [pair('guarded')], authorized_timeout_s: 2 };

export const everyApp = [shop, quiet, counted, closed, sealed, single, small, guarded];
