// The first view: how the platform does now, and in the last hour.

import { drawMinutes, drawPercentiles } from "/console/chart.js";
import { $, bytes, element, item, link, ms, time } from "/console/dom.js";
import { live, onChange } from "/console/live.js";

const sum = (list, key) => list.reduce((all, one) => all + one[key], 0);

function tile(name, value, isBad) {
  const made = element("div", undefined, isBad ? "tile bad" : "tile");
  made.append(element("dt", name), element("dd", value));
  return made;
}

const nameOf = (id) => live.functions.get(id)?.name ?? id.slice(0, 8);

/** Fills a list. A missing list means that the store does not answer. */
function lines(id, all, draw, none) {
  const items = (all ?? []).map(draw);
  const text = all ? none : "The store does not answer.";
  $(id).replaceChildren(...(items.length ? items : [element("li", text, "soft")]));
}

function draw() {
  const all = live.overview;
  // A token that is for some functions has no overview.
  $("overview-limited").hidden = Boolean(all) || !live.hasFunctions;
  $("overview-all").hidden = !all;
  $("welcome").hidden = !live.hasFunctions || live.functions.size > 0;
  if (!all || $("overview-section").hidden) return;
  const { instances, minutes } = all;
  const used = (instances.starting ?? 0) + (instances.idle ?? 0) + (instances.busy ?? 0) + (instances.slot ?? 0);
  const last = minutes.at(-1);
  const failures = sum(minutes, "failures");
  $("tiles").replaceChildren(
    tile("Functions", String(all.functions)),
    tile("Running now", String(instances.busy ?? 0)),
    tile("Waiting", String(all.waiting + all.queued), all.waiting + all.queued > 100),
    tile("Containers", `${used} of ${all.containerLimit}`),
    tile("Invocations, last hour", String(sum(minutes, "invocations"))),
    tile("Failures, last hour", String(failures), failures > 0),
    tile("Cold starts, last hour", String(sum(minutes, "coldStarts"))),
    tile("p50 and p99, lately", last ? `${ms(last.p50Ms)} / ${ms(last.p99Ms)}` : "–"),
  );
  drawMinutes($("minutes"), minutes);
  drawPercentiles($("percentiles"), minutes);
  lines("failures", all.lastFailures, (one) => {
    const made = item(` ${time(one.executedAt ?? one.createdAt)} · ${one.error ?? one.outcome}`);
    made.prepend(link(`${nameOf(one.functionId)}: ${one.outcome}`, `#/runs/${one.invocationId}`));
    return made;
  }, "No invocation has failed.");
  lines("next-runs", all.nextRuns, (one) => {
    const made = item(` ${time(one.at)}`);
    made.prepend(link(`${nameOf(one.functionId)}: ${one.schedule}`, `#/functions/${one.functionId}/triggers`));
    return made;
  }, "No schedule is to come.");
  lines("nodes", all.nodes, (one) => {
    const state = one.ready ? "ready" : "not ready";
    return item(`${one.url ?? "this node"} · ${state} · version ${one.version} · ${one.instances} instances`);
  }, "–");
  // The counts, the minutes and the durations are of the node that the page is connected to.
  $("of-node").hidden = (all.nodes ?? []).length < 2;
  lines("disks", all.disks, (one) => {
    const isLow = one.freeBytes < one.floorBytes ? ", too little for submits (MIN_FREE_DISK)" : "";
    return item(`${one.place}: ${bytes(one.freeBytes)} free${isLow}`);
  }, "–");
  const { health } = all;
  const higher = all.coldStartsAfterEviction
    ? [`A higher DOCKER_CONTAINER_LIMIT would have saved ${all.coldStartsAfterEviction} starts in the last hour.`]
    : [];
  const complaints = [health.reason, ...(health.isolation ?? []), health.transport, ...higher].filter(Boolean);
  lines("complaints", complaints, (text) => item(text), "Nothing.");
}

/** Draws the overview after each change. */
export function begin() {
  onChange(draw);
}

export const showOverview = draw;
