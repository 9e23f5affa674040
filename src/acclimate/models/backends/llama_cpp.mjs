// Vectors by llama.cpp: {"model", "contextSize", "texts"} on standard input -> {"vectors"} on standard output.
// With --check: exit code 0 where the npm package node-llama-cpp is found beside the working folder, in NODE_PATH, or
// installed for all projects.
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.cwd(), "anything.js"));
const everywhere = path.resolve(path.dirname(process.execPath), "../lib/node_modules");

function found() {
    for (const places of [undefined, { paths: [everywhere] }]) {
        try {
            return require.resolve("node-llama-cpp", places);
        } catch {}
    }
    return null;
}

async function vectors({ model: modelPath, contextSize, texts }) {
    const { getLlama, LlamaVocabularyType } = await import(pathToFileURL(found()).href);
    const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", progressLogs: false });
    const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
    const context = await model.createEmbeddingContext({ contextSize, threads: 1 });
    const rows = [];
    // Of Unigram, node-llama-cpp leaves out the first token, which llama.cpp's own llama_tokenize puts there.
    const isUnigram = model.vocabularyType === LlamaVocabularyType.ugm && model.tokens.shouldPrependBosToken;
    const first = isUnigram ? [model.tokens.bos] : [];
    for (const text of texts) {
        const tokens = [...first, ...model.tokenize(text)];
        rows.push([...(await context.getEmbeddingFor(tokens)).vector]);
    }
    return rows;
}

if (process.argv.includes("--check")) {
    process.exit(found() === null ? 1 : 0);
}
let asked = "";
for await (const part of process.stdin.setEncoding("utf8")) asked += part;
const answer = JSON.stringify({ vectors: await vectors(JSON.parse(asked)) });
// The process ends here: to take llama.cpp down in good order would wait for its threads, and nothing is left to keep.
process.stdout.write(answer, () => process.exit(0));
