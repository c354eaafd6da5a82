// coin-hive-stratum: what web pages' miners connect to, and it to a pool. HOST, PORT, POOL, POOL_PORT.
const [host, port, pool, poolPort] = process.argv.slice(2);
// Without its author's share of the work, which would go to a pool elsewhere.
const options = { host: pool, port: Number(poolPort), donations: [] };
require('coin-hive-stratum')(options).listen({ host, port: Number(port) });
