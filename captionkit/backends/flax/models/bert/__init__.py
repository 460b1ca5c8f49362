"""The text layers of BERT (Devlin et al. 2018), which GIT has as well, and BERT as a decoder."""
