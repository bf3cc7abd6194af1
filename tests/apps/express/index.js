const express = require("express");
const fs = require("fs");

const PORT = 8080;
const LOG = "/var/log/app";

const app = express();
app.get("/", (request, response) => {
  if (fs.existsSync(LOG)) {
    fs.appendFileSync(`${LOG}/requests.log`, `${request.method} ${request.url}\n`);
  }
  response.send("Hello from Express!\n");
});

const server = app.listen(PORT, () => console.log(`Listening on port ${PORT}`));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
