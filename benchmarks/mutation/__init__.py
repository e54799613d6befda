"""Mutation testing: do the tests find small faults?"""
