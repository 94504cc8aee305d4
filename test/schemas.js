/** `npm run schemas`: writes config/schemas from the records of the program that was built. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { jsonSchemaOf, RECORDS } from '../dist/core/records.js'

const FOLDER = new URL('../config/schemas/', import.meta.url)

mkdirSync(FOLDER, { recursive: true })
for (const name of Object.keys(RECORDS)) {
  writeFileSync(new URL(`${name}.schema.json`, FOLDER), `${JSON.stringify(jsonSchemaOf(name), null, 2)}\n`)
}
