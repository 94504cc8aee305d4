// Started by lock.test.ts in several processes at once: argv is the mode, the compiled lock module, and the mode's own.
// Prints "ready", waits for the start time on its input, prints one line of JSON, and stays alive until its input ends,
// so that whoever won still counts as alive.
import { once } from 'node:events'
import { closeSync, existsSync, openSync, unlinkSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const [mode, modulePath, folder, ...numbers] = process.argv.slice(2)
const { acquireLock } = await import(pathToFileURL(modulePath).href)

function tryLock(path) {
  try {
    return acquireLock(path, { command: 'contender', nowMs: Date.now() })
  } catch (error) {
    if (error.code !== 'LOCKED') throw error
    return undefined
  }
}

/** All contenders try each lock in the same instant; the numbers of those that this one won. */
function takeOver(rounds, startMs, slotMs) {
  const won = []
  for (let round = 0; round < rounds; round += 1) {
    while (Date.now() < startMs + round * slotMs);
    if (tryLock(`${folder}/${round}.lock`)) won.push(round)
  }
  return { won }
}

/** Takes and releases one lock again and again; every so often dies while holding it. Counts who else was inside. */
function churn(turns, deadlyTurn) {
  const witness = `${folder}/inside`
  let collisions = 0
  for (let turn = 0; turn < turns; ) {
    const lock = tryLock(`${folder}/churn.lock`)
    if (!lock) continue
    turn += 1
    if (existsSync(witness)) collisions += 1
    else {
      closeSync(openSync(witness, 'wx'))
      unlinkSync(witness)
    }
    if (turn === deadlyTurn) process.kill(process.pid, 'SIGKILL')
    lock.release()
  }
  return { turns, collisions }
}

process.stdout.write('ready\n')
const startMs = Number(await once(process.stdin, 'data'))
const [count, other] = numbers.map(Number)
const result = mode === 'takeOver' ? takeOver(count, startMs, other) : churn(count, other)
process.stdout.write(`${JSON.stringify(result)}\n`)
process.stdin.resume()
