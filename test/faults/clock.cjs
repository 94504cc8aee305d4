// Shifts the wall clock of a Node process by so many milliseconds as stand in the file CLOCK_FILE, whenever they change;
// monotonic time is left alone. Load it with NODE_OPTIONS=--require.
'use strict'
const { readFileSync } = require('node:fs')

const LOOK_MS = 10
const system = Date
let shift = 0
let lookedMs = Number.NEGATIVE_INFINITY

function now() {
  const monotonic = performance.now()
  if (monotonic - lookedMs >= LOOK_MS) {
    lookedMs = monotonic
    const text = readFileSync(process.env.CLOCK_FILE, 'utf8')
    // While it is replaced it may be empty for a moment.
    if (/^-?\d+\n$/.test(text)) shift = Number(text)
  }
  return system.now() + shift
}

globalThis.Date = new Proxy(system, {
  construct: (target, words, self) => Reflect.construct(target, words.length > 0 ? words : [now()], self),
  apply: target => new target(now()).toString(),
  get: (target, key, self) => (key === 'now' ? now : Reflect.get(target, key, self))
})
