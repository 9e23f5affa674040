// The base's ranking for the same query, beside which the adapted one is shown.
//
// Where the base's queries may search the index, it is asked in the same way, only deeper, so that ranks below the last
// document shown are known. An index of an adapter that changes documents holds no vectors of the base. Then the base
// puts those documents in order that words or the adapted model find, which the page says.
//
// These searches are no impressions: what learns from feedback counts the adapted ranking only.

import { call } from "./api.js";

export const SHOWN = 10;
const DEPTH = 50;
const POOL = 30;
const BASE = "base";
const BESIDE = { explain: false, impression: false };

/** Why there is nothing to compare, by its key among the words; null where there is. */
export function obstacle(index, request) {
  if (index.models.length === 1 && index.models[0] === BASE) return "compare_only_base";
  if (request.mode === "lexical") return "compare_lexical";
  if (request.rerank && !index.models.includes(BASE)) return "compare_rerank";
  return null;
}

/**
 * The base's ranking.
 * @param {Object} index of `/v1/capabilities`
 * @param {Object} request that the adapted ranking answers
 * @param {Object} reply to it
 * @returns {Promise<{hits: Array, ranks: Map<string, number>, depth: number, pooled: boolean}>}
 *   `hits` those that are shown; `ranks` of all that are known, from 1; `pooled` whether only candidates were ordered.
 */
export async function askBase(index, request, reply, signal) {
  return index.models.includes(BASE) ? direct(request, signal) : pooled(request, reply, signal);
}

async function direct(request, signal) {
  const asked = { ...request, ...BESIDE, adapter: BASE, top_k: DEPTH };
  if (asked.rerank) asked.rerank = Math.max(asked.rerank, DEPTH);
  const reply = await call("POST", "/v1/search", asked, signal);
  return ranking(reply.hits, DEPTH, false);
}

async function pooled(request, reply, signal) {
  const deeper = { ...request, ...BESIDE, top_k: POOL };
  const [adapted, lexical] = await Promise.all([
    call("POST", "/v1/search", { ...deeper, mode: "dense" }, signal),
    call("POST", "/v1/search", { ...deeper, mode: "lexical", adapter: undefined }, signal),
  ]);
  const pool = [...new Map([...reply.hits, ...adapted.hits, ...lexical.hits].map((hit) => [hit.id, hit])).values()];
  if (!pool.length) return ranking([], 0, true);
  const [[query], documents] = await Promise.all([
    embed("query", [request.query], signal),
    embed("document", pool.map((hit) => hit.text), signal),
  ]);
  const dense = ordered(pool, documents.map((vector) => dot(vector, query)));
  if (request.mode === "dense") return ranking(dense, pool.length, true);
  return ranking(fused(dense, lexical.hits, reply.fusion), pool.length, true);
}

function ranking(hits, depth, pooled) {
  const ranks = new Map(hits.map((hit, place) => [hit.id, place + 1]));
  return { hits: hits.slice(0, SHOWN), ranks, depth, pooled };
}

async function embed(side, input, signal) {
  const asked = { model: `${BASE}@${side}`, input, encoding_format: "base64" };
  const reply = await call("POST", "/v1/embeddings", asked, signal);
  return reply.data.map((row) => {
    const bytes = Uint8Array.from(atob(row.embedding), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  });
}

const dot = (one, other) => one.reduce((sum, value, place) => sum + value * other[place], 0);

/** Hits by these scores, equal ones by id. */
function ordered(hits, scores) {
  const rows = hits.map((hit, place) => ({ ...hit, score: scores[place] }));
  return rows.sort((one, other) => other.score - one.score || (one.id < other.id ? -1 : 1));
}

/** Weighted reciprocal rank fusion, as the index itself fuses. */
function fused(dense, lexical, fusion) {
  const scores = new Map();
  const rankings = [
    [dense, fusion.dense_weight],
    [lexical, fusion.lexical_weight],
  ];
  for (const [hits, weight] of rankings) {
    hits.forEach((hit, place) => {
      scores.set(hit.id, (scores.get(hit.id) ?? 0) + weight / (fusion.constant + place + 1));
    });
  }
  return ordered(dense, dense.map((hit) => scores.get(hit.id)));
}
