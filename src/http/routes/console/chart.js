// Charts: bars of durations, each of which can be opened, and bars and lines by the minute.

import { isMissing, ms } from "/console/dom.js";

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.append(text);
  return made;
}

/**
 * Draws a bar for each invocation, the last on the right. Heights are logarithmic, as a cold start or a slow invocation
 * takes a thousand times as long. A click on a bar opens the invocation; by the keyboard the table below does.
 */
export function drawDurations(chart, invocations, open) {
  const bars = invocations.filter((one) => !isMissing(one.durationMs)).slice(0, 100).reverse();
  const longest = Math.max(1, ...bars.map((one) => one.durationMs));
  const height = (value) => 4 + (96 * Math.log10(1 + value)) / Math.log10(1 + longest);
  const width = 600 / Math.max(20, bars.length);
  const drawn = bars.map((one, at) => {
    const tall = height(one.durationMs);
    const place = { x: 600 - (bars.length - at) * width, y: 120 - tall, width: Math.max(1, width - 2), height: tall };
    const bar = svg("rect", { ...place, class: one.outcome });
    bar.append(svg("title", {}, `${one.outcome}, ${ms(one.durationMs)}`));
    bar.addEventListener("click", () => open(one));
    return bar;
  });
  const caption = bars.length ? `up to ${ms(longest)}` : "no durations yet";
  chart.replaceChildren(...drawn, svg("text", { x: 2, y: 12 }, caption));
}

/** The last hour as sixty places, each with its minute, or null where nothing ended. */
function hour(minutes) {
  const now = Math.floor(Date.now() / 60000) * 60;
  const found = new Map(minutes.map((one) => [one.at, one]));
  return Array.from({ length: 60 }, (_, at) => found.get(now - (59 - at) * 60) ?? null);
}

/** Draws the invocations and the failures of each minute of the last hour. */
export function drawMinutes(chart, minutes) {
  const most = Math.max(1, ...minutes.map((one) => one.invocations));
  const bars = hour(minutes).flatMap((one, at) => {
    if (!one) return [];
    const tall = (100 * one.invocations) / most;
    const failed = (100 * one.failures) / most;
    const place = { x: at * 10 + 1, width: 8 };
    const bar = (y, height, kind) => svg("rect", { ...place, y, height: Math.max(height, 1), class: kind });
    const all = bar(120 - tall, tall, "ok");
    all.append(svg("title", {}, `${one.invocations} invocations, ${one.failures} failed`));
    return failed ? [all, bar(120 - failed, failed, "exit")] : [all];
  });
  chart.replaceChildren(...bars, svg("text", { x: 2, y: 12 }, minutes.length ? `up to ${most} a minute` : "none yet"));
}

/** Draws the percentiles of each minute of the last hour, with logarithmic heights. */
export function drawPercentiles(chart, minutes) {
  const longest = Math.max(1, ...minutes.map((one) => one.p99Ms));
  const y = (value) => 116 - (96 * Math.log10(1 + value)) / Math.log10(1 + longest);
  const dots = (key, kind) => hour(minutes).flatMap((one, at) => {
    if (!one) return [];
    const dot = svg("circle", { cx: at * 10 + 5, cy: y(one[key]), r: 3, class: kind });
    dot.append(svg("title", {}, `${kind}: ${ms(one[key])}`));
    return [dot];
  });
  const caption = minutes.length ? `p50 and p99, up to ${ms(longest)}` : "none yet";
  chart.replaceChildren(...dots("p50Ms", "p50"), ...dots("p99Ms", "p99"), svg("text", { x: 2, y: 12 }, caption));
}
