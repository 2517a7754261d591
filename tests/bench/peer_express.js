// `/refresh` as in the tutorial: Express, cookie-parser, jsonwebtoken.
'use strict'

const cookieParser = require('cookie-parser')
const express = require('express')
const jwt = require('jsonwebtoken')

const app = express()
app.use(express.json())
app.use(express.urlencoded({ extended: false }))
app.use(cookieParser())

app.post('/refresh', (req, res) => {
  if (!req.cookies?.jwt) return res.status(406).json({ message: 'Unauthorized' })
  jwt.verify(req.cookies.jwt, process.env.REFRESH_TOKEN_SECRET, (error, claims) => {
    if (error) return res.status(406).json({ message: 'Unauthorized' })
    const accessToken = jwt.sign({ username: claims.username }, process.env.ACCESS_TOKEN_SECRET, { expiresIn: '10m' })
    return res.json({ accessToken })
  })
})

app.listen(Number(process.env.PORT), '127.0.0.1')
