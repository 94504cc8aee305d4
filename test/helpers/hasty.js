// Makes what a program does every 5 s happen every 400 ms: `NODE_OPTIONS=--import <this file>`. Other periods stay.
const { setInterval } = globalThis
globalThis.setInterval = (action, ms, ...rest) => setInterval(action, ms === 5000 ? 400 : ms, ...rest)
