// A mining pool made with npm's `stratum` package, so that not every pool in
// the tests is our own. Arguments: address, port.
const { Server } = require("stratum");

const [address, port] = process.argv.slice(2);
const settings = { hostname: address, host: address, port: Number(port), toobusy: 10000 };
const server = Server.$create({ settings });
let job = 0;

function notify(socket) {
  job += 1;
  server.sendToId(socket.id, "notify", [
    `job${job}`, "4d16b6f85af6e2198f44ae2a6de67f78487ae5611b77c6c0440b921e00000000",
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff20",
    "072f736c7573682f000000000100f2052a010000001976a914d23fcdf86f7e756a64a7a9688ef9903327048ed9",
    [[]], "00000002", "1c2ac4af", "504e86b9", true,
  ]);
}

server.on("mining", (request, deferred, socket) => {
  switch (request.method) {
    case "subscribe":
      deferred.resolve(["b4b6693b72a50c7116db18d6497cac52", "ae6812eb4cd7735a302a8a9dd95cf71f", "f8002c90", 4]);
      break;
    case "authorize":
      deferred.resolve([true]);
      deferred.promise.then(() => notify(socket));
      break;
    case "submit":
      console.log(`share accepted: ${JSON.stringify(request.params)}`);
      deferred.resolve([true]);
      deferred.promise.then(() => notify(socket));
      break;
    default:
      deferred.reject(Server.errors.METHOD_NOT_FOUND);
  }
});

server.listen();
