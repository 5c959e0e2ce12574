// One line of JSON, a path, is answered with one: the header that parseSafetensorsMetadata makes of that file, or the
// name and words of what it threw. The library reads by HTTP; its own hook for another transport serves the file.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const { parseSafetensorsMetadata } = require("@huggingface/hub");

function serving(path) {
  return async (_url, options = {}) => {
    const size = fs.statSync(path).size;
    const range = /^bytes=(\d+)-(\d+)$/.exec(options.headers?.Range ?? "");
    const begin = range ? Number(range[1]) : 0;
    const end = range ? Math.min(Number(range[2]) + 1, size) : size;
    const body = Buffer.alloc(Math.max(0, end - begin));
    const file = fs.openSync(path, "r");
    try {
      fs.readSync(file, body, 0, body.length, begin);
    } finally {
      fs.closeSync(file);
    }
    const headers = { "content-range": `bytes ${begin}-${end - 1}/${size}`, etag: '"local"' };
    return new Response(body, { status: range ? 206 : 200, headers });
  };
}

async function answer(path) {
  try {
    const repo = { type: "model", name: "local/file" };
    const told = await parseSafetensorsMetadata({ repo, path, fetch: serving(path) });
    return { header: told.header };
  } catch (error) {
    return { thrown: error?.name ?? "", code: error?.code ?? "", message: String(error?.message ?? error) };
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
  }
}

main();
